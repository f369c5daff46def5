"""The private names of other libraries that we rely on are still where we expect them."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from importlib import import_module

import httpx
import httpx2
import pytest
from recorded import REPOSITORY

from tracefork_otel.private_names import PRIVATE_NAMES, Private

DOCUMENTED = frozenset({"_exit", "_getframe", "_is_gil_enabled", "_replace"})
"""Public by their documentation, whatever they look like."""


@pytest.mark.parametrize("private", PRIVATE_NAMES, ids=lambda private: f"{private.module}.{private.name}")
def test_private_name_is_there(private: Private) -> None:
    """The module, class or instance has the name."""
    pytest.importorskip(private.module.partition(".")[0])
    owner = import_module(private.module)
    if private.owner is not None:
        owner = getattr(owner, private.owner)
    if private.made_with is not None:
        owner = owner(*private.made_with)
    assert hasattr(owner, private.name)


@pytest.mark.parametrize("cls", [httpx2.Client, httpx2.AsyncClient, httpx.Client, httpx.AsyncClient])
def test_send_takes_one_request_and_asks_for_the_transport(cls: type) -> None:
    """The wrapped method takes one request and asks its client for the transport, as a replay relies on."""
    method = cls._send_single_request  # type: ignore[attr-defined]
    assert list(inspect.signature(method).parameters) == ["self", "request"]
    assert "self._transport_for_url(request.url)" in inspect.getsource(method)


def _is_private(name: object) -> bool:
    return isinstance(name, str) and name.startswith("_") and not name.startswith("__") and name != "_"


def _defined(tree: ast.AST) -> set[str]:
    """The names that a file gives itself: functions, classes, variables, attributes of its own objects."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            found |= {node.attr} if owner in ("self", "cls") else set()
    return found


def _reached_for(tree: ast.AST) -> Iterator[str]:
    """The private names that a file asks of something: attributes, imports, and names given as text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Import):
            yield from (part for alias in node.names for part in alias.name.split("."))
        elif isinstance(node, ast.ImportFrom) and node.module not in ("__future__", "tracefork_otel._launch"):
            yield from (alias.name for alias in node.names)
            yield from (node.module or "").split(".")
        elif isinstance(node, ast.Call):
            called = node.func
            name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            if name in ("getattr", "hasattr", "setattr", "delattr", "replace"):
                yield from (given.value for given in node.args if isinstance(given, ast.Constant))


def used(tree: ast.AST) -> set[str]:
    """The private names in a file that it does not define itself."""
    return {name for name in _reached_for(tree) if _is_private(name)} - _defined(tree)


def test_no_other_private_name_is_used() -> None:
    """No file of either package reaches for a private name that it did not define and that is not listed."""
    known = {private.name for private in PRIVATE_NAMES} | {"_decorator"} | DOCUMENTED
    files = [
        file
        for package in ("tracefork_otel", "backend/tracefork_backend")
        for file in sorted((REPOSITORY / package).rglob("*.py"))
    ]
    found = {str(file): used(ast.parse(file.read_text())) - known for file in files}
    assert {file: names for file, names in found.items() if names} == {}


def test_every_way_to_reach_for_a_private_name_is_seen() -> None:
    """An attribute, an import and a name as text are each found; what a file defines itself is not."""
    tree = ast.parse(
        """
import library._module
from library import _name
from library._place import name
class Own:
    def __init__(self): self._ours = other._attribute
    def more(self): return self._ours, getattr(other, "_text"), replace(other, "_replaced", 1)
"""
    )
    assert used(tree) == {"_module", "_name", "_place", "_attribute", "_text", "_replaced"}
