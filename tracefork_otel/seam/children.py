"""The environment of programs that this process starts: what records, or plays to, a Python is handed down.

An agent may give its child an environment of its own, or change what children inherit. Whatever such a child
says to a model would go round the recorder, and in a replay to the model itself.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from ..session import current
from ..session.imports import when_imported
from ..session.session import Session
from ..undo import Undo
from .lending import Lending
from .noting import Started

BOOT = str(Path(__file__).parent.parent / "boot")
"""The folder whose sitecustomize starts the recording."""
_OWN = "TRACEPARENT"
"""What a child may have another value of, and is played to nevertheless."""


def hand_down(undo: Undo) -> None:
    """Have each program that this process starts find what it was given itself, until that is undone."""
    execve = os.execve
    undo.replace(os, "execve", _giving(execve))
    for name in ("posix_spawn", "posix_spawnp"):
        if hasattr(os, name):
            undo.replace(os, name, _giving(_started(getattr(os, name))))
    # These take this process's own environment, whatever the agent made of it.
    undo.replace(os, "execv", _executing(os.execv, execve))
    undo.replace(os, "system", _of_line(_inheriting(os.system)))
    undo.add(when_imported("subprocess", lambda module: _on_subprocess(module, undo)))
    undo.add(when_imported("multiprocessing.util", lambda module: _on_multiprocessing(module, undo)))


def missing_in(session: Session, env: Mapping[Any, Any]) -> dict[str, str]:
    """Return the variables that a child with this environment lacks; none where it was left out on purpose.

    In a recording an agent may turn it off for a child, or record it elsewhere; in a replay nobody leaves.
    """
    known = {os.fsdecode(name): os.fsdecode(value) for name, value in env.items()}
    ours, recording = session.handed_down(), session.settings.mode == "record"
    if recording and known.get("TRACEFORK_MODE", "record") != "record":
        return {}
    missing = {
        name: value
        for name, value in ours.items()
        if (name not in known if recording or name == _OWN else known.get(name) != value)
    }
    path = [entry for entry in known.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if path[:1] != [BOOT]:
        # First: what a tracer's own starter puts there makes exporters, before ours would be loaded.
        missing["PYTHONPATH"] = os.pathsep.join([BOOT, *(entry for entry in path if entry != BOOT)])
    return missing


def _completed(session: Session, env: Mapping[Any, Any] | None) -> Mapping[Any, Any] | None:
    """Return the environment with what it lacks; the same one where it lacks nothing."""
    given: Mapping[Any, Any] = os.environ if env is None else env
    missing = missing_in(session, given)
    if not missing:
        return env
    return {**{name: value for name, value in given.items() if os.fsdecode(name) not in missing}, **missing}


def _gives_path(given: Any) -> bool:
    """Return whether it may give what it starts a path of its own."""
    if isinstance(given, str):
        return "PYTHONPATH=" in given
    words = cast("list[Any]", [*given]) if isinstance(given, list | tuple) else []
    return all(isinstance(word, str) for word in words) and any("PYTHONPATH=" in word for word in words)


def _reached(given: Any, *, shell: bool) -> Any:
    """Return what is to be started, our entry in each `PYTHONPATH` that it surely gives to what it starts."""
    if not _gives_path(given) or (isinstance(given, str) and not shell):
        return given
    from .reaching import in_line, in_words  # few give one

    if isinstance(given, str):
        return in_line(given, BOOT)
    words: list[str] = list(given)
    return [in_line(words[0], BOOT), *words[1:]] if shell else in_words(words, BOOT)


def _on_subprocess(module: ModuleType, undo: Undo) -> None:
    original: Callable[..., None] = module.Popen.__init__

    @functools.cache  # asked at need: it takes as long as all else that is done here
    def place(name: str) -> int:
        return list(inspect.signature(original).parameters).index(name) - 1

    @functools.wraps(original)
    def start(self: Any, *args: Any, **kwargs: Any) -> None:
        session = current.session
        if session is None:
            original(self, *args, **kwargs)
            return
        given = args[0] if args else kwargs.get("args")
        try:
            if len(args) > 1 and len(args) > (env := place("env")):
                args = (*args[:env], _completed(session, args[env]), *args[env + 1 :])
            else:
                kwargs = {**kwargs, "env": _completed(session, kwargs.get("env"))}
            if _gives_path(given):
                positional = len(args) > 1 and len(args) > place("shell")
                shell = args[place("shell")] if positional else kwargs.get("shell")
                started_as = _reached(given, shell=bool(shell))
                args, kwargs = (started_as, *args[1:]), {**kwargs}
                kwargs.pop("args", None)
        except Exception as error:
            session.lost("environment of a program", error)
        with Started() as started:
            original(self, *args, **kwargs)
            self.args = given  # what its errors quote
            started.has(self.pid)

    undo.replace(module.Popen, "__init__", start)


def _on_multiprocessing(module: ModuleType, undo: Undo) -> None:
    undo.replace(module, "spawnv_passfds", _inheriting(module.spawnv_passfds))


def _giving(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of `os` with its third argument, the environment, completed."""

    @functools.wraps(original)
    def start(path: Any, argv: Any, env: Any, *args: Any, **kwargs: Any) -> Any:
        session = current.session
        if session is None:
            return original(path, argv, env, *args, **kwargs)
        try:
            env, argv = _completed(session, env), _reached(argv, shell=False)
        except Exception as error:
            session.lost("environment of a program", error)
        return original(path, argv, env, *args, **kwargs)

    return start


def _started(original: Callable[..., int]) -> Callable[..., int]:
    """Return the function, what is noted of its program written with the process that it returns."""

    @functools.wraps(original)
    def start(*args: Any, **kwargs: Any) -> int:
        # Only where one comes back: of an exec nothing does, so its notes are written before it.
        with Started() as started:
            pid = original(*args, **kwargs)
            started.has(pid)
        return pid

    return start


def _executing(execv: Callable[..., Any], execve: Callable[..., Any]) -> Callable[..., Any]:
    """Return `execv`, with this process's own environment completed."""

    @functools.wraps(execv)
    def start(path: Any, argv: Any, /) -> Any:
        session = current.session
        env = None
        if session is not None:
            try:
                env, argv = _completed(session, None), _reached(argv, shell=False)
            except Exception as error:
                session.lost("environment of a program", error)
        return execv(path, argv) if env is None else execve(path, argv, env)

    return start


def _of_line(original: Callable[[Any], int]) -> Callable[[Any], int]:
    """Return `system`, with what its line gives as `PYTHONPATH` completed."""

    @functools.wraps(original)
    def start(command: Any) -> int:
        session = current.session
        if session is not None:
            try:
                command = _reached(command, shell=True)
            except Exception as error:
                session.lost("environment of a program", error)
        return original(command)

    return start


_lending = Lending()


def _inheriting(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, which takes no environment, while which runs this process's own is complete."""

    @functools.wraps(original)
    def start(*args: Any, **kwargs: Any) -> Any:
        session = current.session
        if session is None:
            return original(*args, **kwargs)

        def missing() -> Mapping[str, str]:
            try:
                return missing_in(session, os.environ)
            except Exception as error:
                session.lost("environment of a program", error)
                return {}

        with _lending.of(missing):
            return original(*args, **kwargs)

    return start
