"""The modules of the user's own code that a file of Python imports, without running any of it."""

from __future__ import annotations

import ast
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from tracefork_otel.draws.scope import USER, Scope

LIMIT = 200
"""Files that are looked into, those that are nearest by their imports first."""


def own_modules(file: Path, name: str) -> dict[str, Path]:
    """Return the user's own modules that the module `name` in that file imports, and those that they do.

    Each is told with its file. What is imported inside a function counts as well.
    """
    scope, found = Scope(), dict[str, Path]()
    if scope.of_module(name, os.path.realpath(file)) != USER:
        return found
    deep = name.count(".") + (file.name == "__init__.py")
    root = file.parents[min(deep, len(file.parents) - 1)]
    waiting = deque([(name, file)])
    while waiting:
        module, path = waiting.popleft()
        for imported in _imports(path, module):
            if imported in found or imported == name or len(found) >= LIMIT:
                continue
            source = _source_of(imported, [str(root), *sys.path])
            if (
                source is None
                or source == file
                or scope.of_module(imported, os.path.realpath(source)) != USER
            ):
                continue
            found[imported] = source
            waiting.append((imported, source))
    return found


def _imports(file: Path, module: str) -> Iterator[str]:
    """Return the names of what the file imports: each module, what holds it, what may be one in it."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                yield from _with_parents(one.name)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join(filter(None, [*above, node.module]))
            yield from _with_parents(base)
            for one in node.names:
                yield f"{base}.{one.name}" if base else one.name


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".") if name else []
    for end in range(1, len(parts) + 1):
        yield ".".join(parts[:end])


def _source_of(name: str, folders: Iterable[str]) -> Path | None:
    """Return the file of Python that the module is, or would be, loaded from; None if it is none."""
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if loaded is None:
        loaded = _found(name, list(folders))
    return Path(loaded) if isinstance(loaded, str) and loaded.endswith(".py") else None


def _found(name: str, folders: list[str]) -> str | None:
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        try:
            spec = PathFinder.find_spec(".".join(parts[:end]), folders)
            if spec is None:
                return None
            if end == len(parts):
                return spec.origin
            folders = list(spec.submodule_search_locations or ())
        except (ImportError, KeyError, OSError, ValueError):  # a folder without a file is one of its parent's
            return None
    return None
