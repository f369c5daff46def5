"""The private names of other libraries that we rely on are still where we expect them."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module

import httpx
import httpx2
import pytest
from recorded import REPOSITORY

from tracefork_otel.private_names import PRIVATE_NAMES, Private


@pytest.mark.parametrize("private", PRIVATE_NAMES, ids=lambda private: f"{private.module}.{private.name}")
def test_private_name_is_there(private: Private) -> None:
    """The module, class or instance has the name."""
    owner = import_module(private.module)
    if private.owner is not None:
        owner = getattr(owner, private.owner)
    if private.on_instance:
        owner = owner()
    assert hasattr(owner, private.name)


@pytest.mark.parametrize("cls", [httpx2.Client, httpx2.AsyncClient, httpx.Client, httpx.AsyncClient])
def test_send_takes_one_request_and_asks_for_the_transport(cls: type) -> None:
    """The wrapped method takes one request and asks its client for the transport, as a replay relies on."""
    method = cls._send_single_request  # type: ignore[attr-defined]
    assert list(inspect.signature(method).parameters) == ["self", "request"]
    assert "self._transport_for_url(request.url)" in inspect.getsource(method)


def test_no_other_private_name_is_used() -> None:
    """No other module of the package reaches for a private attribute of something that it did not define."""
    package = REPOSITORY / "tracefork_otel"
    known = {private.name for private in PRIVATE_NAMES}
    found: list[str] = []
    for file in sorted(package.rglob("*.py")):
        if file.name == "private_names.py":
            continue
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module != "__future__":
                found += [f"{file.name}: {alias.name}" for alias in node.names if alias.name.startswith("_")]
            elif isinstance(node, ast.Constant) and node.value in known:
                found.append(f"{file.name}: {node.value}")
    assert found == []
