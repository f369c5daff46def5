"""The installed package whose program this process runs: it is the agent's own code, wherever it lies."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from ..session.interpreter import own_words
from ..tape.start import CALLED

RUNNERS = (
    *("IPython", "celery", "coverage", "debugpy", "flask", "gunicorn", "hypercorn", "ipykernel", "jupyter"),
    *("marimo", "pip", "pytest", "streamlit", "tracefork_backend", "tracefork_otel", "unittest", "uvicorn"),
)
"""Programs that run somebody else's code: what they draw themselves says nothing to a model."""
_WRAPPER_BYTES = 4096
"""The script that an installer makes for a command is a few lines."""


def own_packages(argv: Sequence[str] = sys.orig_argv, recorded_as: str = "") -> tuple[str, ...]:
    """Return the package that `-m` or an installed command starts; none for a script of one's own.

    Where a replay calls the agent's function, `recorded_as` is the program that called it in the recording:
    the function's package was started itself, unless that was a script or code.
    """
    module = None
    for at, word in own_words(["python", *argv[1:]]):
        if word == "-m":
            module, *more = (*argv[at + 1 : at + 3], "")
            if module in CALLED:
                is_code = recorded_as.endswith(".py") or recorded_as in ("-c", "python")
                module = None if is_code else more[0].partition(":")[0]
        elif not word.startswith("-"):
            module = _called_by(word)
    package = None if not module else _package(module)
    return () if package is None or package in RUNNERS else (package,)


def _called_by(script: str) -> str | None:
    """Return the module whose function is all that the script calls, as installers write it; else None."""
    with suppress(OSError, SyntaxError, ValueError):
        if os.path.getsize(script) > _WRAPPER_BYTES:
            return None
        tree = ast.parse(Path(script).read_bytes())
        imported: dict[str, str] = {}
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                return None
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported |= {one.asname or one.name: node.module for one in node.names}
            elif isinstance(node, ast.Import):
                imported |= {one.asname or one.name.partition(".")[0]: one.name for one in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("sys.exit", "exit", "SystemExit"):
                for argument in node.args:
                    if isinstance(argument, ast.Call):
                        return imported.get(ast.unparse(argument.func).partition(".")[0])
    return None


def _package(module: str) -> str | None:
    """Return the outermost package of the module that is no mere folder of other packages."""
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        with suppress(ImportError, ValueError, AttributeError):
            spec = find_spec(name)
            if spec is not None and spec.origin is not None:
                return name
            if spec is None:
                return None
    return None
