"""The oracles that flags can ask for; adding one is adding its class here.

A kind has its flags, and `asked` gives the oracle of their values, by the flags' names, as the journal of an
experiment keeps them too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tracefork_otel.errors import UsageError

from ..flag import Flag
from .exit_code import ExitCode
from .field import Field
from .function import Function
from .judge import Judge
from .offers import offers_for
from .oracle import Oracle
from .regex import Regex

if TYPE_CHECKING:
    from ..store import Run

KINDS = (Regex, Field, ExitCode, Function, Judge)
FLAGS: tuple[Flag, ...] = tuple(flag for kind in KINDS for flag in kind.flags)


def from_flags(given: Mapping[str, Any]) -> Oracle | None:
    """Return the one oracle that the values of flags ask for, by the flags' names; None for no flag.

    Raises UsageError for two oracles or a malformed value.
    """
    given = {flag.name: given[flag.name] for flag in FLAGS if given.get(flag.name) not in (None, False)}
    asked = [kind for kind in KINDS if any(flag.name in given for flag in kind.flags if not flag.alone)]
    if len(asked) > 1:
        raise UsageError(f"one oracle grades a run: choose one of {', '.join(_ways())}")
    own = asked[0].flags if asked else ()
    for flag in FLAGS:
        if flag.name in given and flag not in own and flag.alone:
            raise UsageError(flag.alone)
    return asked[0].asked(given) if asked else None


def asked_for(given: Mapping[str, Any], run: Run | None = None) -> Oracle:
    """Return the same where there has to be one; what is missing is offered by what a run put out."""
    found = from_flags(given)
    if found is None:
        *ways, last = _ways()
        more = "" if run is None else _offered(offers_for(run))
        raise UsageError(f"say what a success is: {', '.join(ways)} or {last}{more}")
    return found


def _offered(some: Sequence[str]) -> str:
    return f"; for this run {', '.join(some[:-1])} or {some[-1]} may do"


def _ways() -> list[str]:
    return [" with ".join(str(flag) for flag in kind.flags if not flag.alone) for kind in KINDS]
