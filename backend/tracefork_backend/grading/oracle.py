"""Oracles: whether a run ended in success.

An oracle is any function from `Graded` to True (success), False (failure) or None (it cannot tell).
Those that flags can ask for are each one class in a file of this folder; see `kinds`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tracefork_otel.errors import UsageError

from .graded import Graded

Oracle: TypeAlias = Callable[[Graded], bool | None]


def grade(oracle: Oracle, graded: Graded) -> bool | None:
    """Return the run's outcome: True, False, or None if it has a problem or the oracle cannot tell.

    Raises UsageError naming the oracle if it raises, or answers with anything else.
    """
    if graded.problem is not None:
        return None
    try:
        answer: object = oracle(graded)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"the oracle {name_of(oracle)} failed on run {graded.run_id[:8]}: "
            f"{type(error).__name__}: {error}; let it answer None where it cannot tell"
        ) from error
    if answer is None or isinstance(answer, bool):
        return answer
    raise UsageError(
        f"the oracle {name_of(oracle)} answered {answer!r} on run {graded.run_id[:8]}: "
        "it has to answer True (success), False (failure) or None (cannot tell)"
    )


def name_of(oracle: Oracle) -> str:
    """Return what tables and messages call the oracle."""
    named = getattr(oracle, "name", None)
    return named if isinstance(named, str) else str(getattr(oracle, "__qualname__", None) or repr(oracle))
