"""Oracles: whether a run ended in success.

An oracle is any function from `Graded` to True (success), False (failure) or None (it cannot tell).
Those that flags can ask for are each one class in a file of this folder; see `kinds`.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from tracefork_otel.errors import UsageError

from ..spelling import run_name
from .apart import Apart, Failed, question
from .bounded import Endless, bounded, can_interrupt
from .graded import Graded, How
from .imported import own_modules

Oracle: TypeAlias = Callable[[Graded], bool | None]
LIMIT_S = 600.0
"""Seconds that an oracle may take of one run: a test suite may be one, one that waits for ever is none."""


def grade(oracle: Oracle, graded: Graded, *, limit_s: float | None = LIMIT_S) -> bool | None:
    """Return the run's outcome: True, False, or None if it has a problem or the oracle cannot tell.

    Of a run whose output is not known, or not all of it, only those are asked that can tell by what there is.
    Raises UsageError naming the oracle if it raises, does not end in time, or answers with anything else.
    """
    if graded.problem is not None:
        return None
    how = getattr(oracle, "how", None)
    how = how if isinstance(how, How) else How()
    if how.output and (graded.unseen or (graded.left_out and not how.parts)):
        return None
    name, run = name_of(oracle), run_name(graded.run_id)
    try:
        answer = oracle(graded) if how.limited else _answer(oracle, graded, limit_s)
    except UsageError:
        raise
    except Endless:
        limit_s = getattr(oracle, "limit_s", limit_s)
        raise UsageError(
            f"the oracle {name} did not end within {limit_s:g} s on run {run}: a pattern that repeats what "
            "repeats, like (a+)+, can take for ever; give another, or a function more time by --timeout"
        ) from None
    except Exception as error:
        why = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
        raise UsageError(
            f"the oracle {name} failed on run {run}: {why}; let it answer None where it cannot tell"
        ) from error
    if answer is None or isinstance(answer, bool):
        return answer
    if inspect.iscoroutine(answer):
        answer.close()  # else Python warns of it, somewhere else
        raise UsageError(
            f"the oracle {name} is an `async def`, which answers nothing by itself: name a plain function, "
            "such as one that gives it to asyncio.run()"
        )
    raise UsageError(
        f"the oracle {name} answered {answer!r} on run {run}: "
        "it has to answer True (success), False (failure) or None (cannot tell)"
    )


def _answer(oracle: Oracle, graded: Graded, limit_s: float | None) -> object:
    """Ask it here where it can be ended here, else, if it has a name, in a process that can be."""
    apart = getattr(oracle, "apart", None)
    if limit_s is not None and isinstance(apart, Apart) and not can_interrupt(limit_s):
        asked = question(graded, limit_s)
        if asked is not None:
            return apart.ask(asked, limit_s)
    return bounded(lambda: oracle(graded), limit_s)


def remarks_of(oracle: Oracle, graded: Graded) -> tuple[str, ...]:
    """Return what the oracle itself has to say of how it read that run."""
    remarks: Callable[[Graded], tuple[str, ...]] | None = getattr(oracle, "remarks", None)
    return () if remarks is None else remarks(graded)


def name_of(oracle: Oracle) -> str:
    """Return what tables and messages call the oracle."""
    named = getattr(oracle, "name", None)
    return named if isinstance(named, str) else str(getattr(oracle, "__qualname__", None) or repr(oracle))


def digest_of(oracle: Oracle) -> str | None:
    """Return the digest of what the oracle grades by beside its name: what it asks, or its function's file.

    None where its name says all, or nobody can tell.
    """
    asked = getattr(oracle, "asks", None)
    if isinstance(asked, str):
        return hashlib.sha256(asked.encode()).hexdigest()
    path = _file_of(oracle)
    try:
        return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def modules_of(oracle: Oracle) -> dict[str, Path]:
    """Return the user's own modules that the function's file imports, each with its file; none of ours."""
    path = _file_of(oracle)
    if path is None:
        return {}
    call = getattr(oracle, "call", oracle)
    return own_modules(path, getattr(inspect.unwrap(call), "__module__", None) or path.stem)


def digests_of(modules: Mapping[str, Path]) -> dict[str, str]:
    """Return the digest of each module's file that can be read."""
    found: dict[str, str] = {}
    for name, path in modules.items():
        try:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            continue
    return found


def whose(oracle: Oracle) -> str:
    """Return the oracle's name, and where its function lies."""
    path = _file_of(oracle)
    return name_of(oracle) if path is None else f"{name_of(oracle)} ({path})"


def _file_of(oracle: Oracle) -> Path | None:
    call = getattr(oracle, "call", oracle)
    if (getattr(call, "__module__", None) or "").partition(".")[0] == __name__.partition(".")[0]:
        return None  # ours, which another version may have in another file
    try:
        function = inspect.unwrap(call)
        file = inspect.getsourcefile(function if inspect.isroutine(function) else type(function))
    except (TypeError, ValueError):
        return None
    return None if file is None else Path(file)
