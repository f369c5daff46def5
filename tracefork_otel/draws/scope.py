"""Whose draw it is: the first frame that is neither a helper of the standard library nor a value library."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Any

OUT, USER, VIA, JOB = 0, 1, 2, 3
"""A library's own draw, the agent's, on behalf of the caller, on behalf of who submitted the job."""

# These draw for whoever calls them. Not tempfile: served names would meet the files that the recording left.
TRANSPARENT = (
    "uuid",
    "random",
    "secrets",
    "dataclasses",
    "email.utils",
    "pydantic.main",
    "pydantic.dataclasses",
    "pydantic.root_model",
    "attr._make",
    "pendulum",
    "arrow",
    "dateutil",
    "numpy.random",
    "shortuuid",
    "ulid",
    "faker",
    "nanoid",
)
# Functions of frameworks whose ids can stand in a request: the agent's own, whatever else is recorded.
FRAMEWORKS = (
    "pydantic_ai._utils:generate_tool_call_id",
    "langchain.agents.structured_output",
    "langchain_core.utils.function_calling",
)
_OURS = ("tracefork_otel", "tracefork_backend")
_HOME = os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + os.sep
_STDLIB = os.path.dirname(os.path.realpath(os.__file__)) + os.sep
_COMPREHENSION = re.compile(r"(\.<locals>)?\.?<(listcomp|dictcomp|setcomp|genexpr)>$")  # inlined since 3.12


class Scope:
    """The verdict on each code object, decided once."""

    def __init__(self, include: Iterable[str] = (), outside: tuple[str, ...] = ()) -> None:
        self._verdicts: dict[int, int] = {}
        # By id, as equal code in two files compares equal; kept, so that no id is used twice.
        self._kept: list[CodeType] = []
        self._libraries = (_STDLIB, _HOME, *outside)
        self.include = (*FRAMEWORKS, *include)
        """Modules, with what is below them, and single functions as `module:qualname`."""

    def mark(self, code: CodeType, verdict: int) -> None:
        """Give the code this verdict."""
        if id(code) not in self._verdicts:
            self._kept.append(code)
        self._verdicts[id(code)] = verdict

    def forget(self, include: Iterable[str]) -> None:
        """Count modules with these names, and what is below them, as the agent's from now on."""
        self.include = tuple(dict.fromkeys((*self.include, *include)))
        self._verdicts = {key: verdict for key, verdict in self._verdicts.items() if verdict == JOB}

    def of(self, frame: FrameType) -> int:
        """Return the verdict on the frame's code."""
        code = frame.f_code
        found = self._verdicts.get(id(code))
        if found is None:
            found = self._decide(frame)
            self.mark(code, found)
        return found

    def _decide(self, frame: FrameType) -> int:
        file, names = frame.f_code.co_filename, frame.f_globals
        name: str = names.get("__name__") or ""
        if _below(name, _OURS):
            return OUT
        if _below(name, self.include) or f"{name}:{frame.f_code.co_qualname}" in self.include:
            return USER
        if _below(name, TRANSPARENT) or (name == "threading" and frame.f_code.co_name == "run"):
            return VIA
        path: str = (names.get("__file__") or file) if file.startswith("<") else file
        if path.startswith("<frozen"):
            return OUT
        if path.startswith("<"):  # a prompt, a notebook, -c; attrs' made methods draw for their caller
            return VIA if file.startswith("<attrs") else USER
        return self.of_module(name, os.path.realpath(path))

    def of_module(self, name: str, path: str) -> int:
        """Return the verdict on a module of that name in a file with that real path."""
        if _below(name, self.include):
            return USER
        if _below(name, (*_OURS, *TRANSPARENT)):
            return OUT
        library = path.startswith(self._libraries) or "/site-packages/" in path or "/dist-packages/" in path
        return OUT if library else USER


def _below(name: str, prefixes: Iterable[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def site_of(frame: FrameType, via: str | None) -> str:
    """Return the function as `module:qualname`, the same whether its module was imported or started."""
    names: dict[str, Any] = frame.f_globals
    module: str = names.get("__name__") or "?"
    if module == "__main__":
        spec = names.get("__spec__")
        if spec is not None:
            module = spec.name.removesuffix(".__main__")
        else:
            file = names.get("__file__") or ""
            module = os.path.splitext(os.path.basename(file))[0] or module
    code: Any = frame.f_code
    qualname = _COMPREHENSION.sub("", code.co_qualname) or "<module>"
    return f"{module}:{qualname}" + (f"<{via}" if via else "")
