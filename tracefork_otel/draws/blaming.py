"""Which draws a drift follows from: those that were not on the tape, or not recorded at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..play.match import Explanation
from .deck import Suspect
from .wording import family, looks, place, shown

QUOTED = 2
"""A sentence names this many draws."""
_CHANCE = ("clock", "id", "random")
_GUESSES = ("prompt", "tool_result", "parameter", "extra")
"""Causes that only say where the difference stands: a draw that is known to be missing says more."""
_UNKNOWN = (
    "no draw of the agent's is missing, so a library's own may be in it{}: record with "
    "TRACEFORK_DRAWS_INCLUDE={}, or leave this path out: --ignore"
)
_ANEW = "record anew if its code was changed, or leave this path out: --ignore"


def after_draws(explanation: Explanation) -> Explanation:
    """Return the explanation with advice that helps where `run --draws` was given, and nothing was drawn."""
    if explanation.cause not in _CHANCE or explanation.advice:
        return explanation
    return replace(explanation, advice=_unknown(explanation, ()))


def explained(explanation: Explanation, suspects: Iterable[Suspect]) -> Explanation:
    """Return the explanation with the draws quoted that it follows from, their kind as its cause."""
    listed = list(suspects)
    found, cause = _proven(explanation, listed), explanation.cause
    if found:
        if cause in (*_GUESSES, *_CHANCE):
            cause = family(found[0].source)
    else:
        found = _likely(explanation, listed)
        if found and cause in _GUESSES:
            cause = family(found[0].source)
    if not found:
        if explanation.advice or cause not in _CHANCE:
            return explanation
        return replace(explanation, advice=_unknown(explanation, listed))
    quoted = list(dict.fromkeys(_quote(one) for one in found))
    more = f" and {len(quoted) - QUOTED} more" if len(quoted) > QUOTED else ""
    said = f"{', '.join(quoted[:QUOTED])}{more}"
    if explanation.advice:  # of a tool's call, which has remedies of its own
        return replace(explanation, advice=f"{said}; {explanation.advice}")
    return replace(explanation, cause=cause, advice=f"{said}; {_advice(found)}")


def _unknown(explanation: Explanation, suspects: Sequence[Suspect]) -> str:
    """Return what to do where no draw is known to be in it, by the libraries that drew one of its kind."""
    drew = [place(one.site) for one in suspects if one.kind == "library"]
    drew = list(dict.fromkeys(drew)) if explanation.cause != "clock" else []  # of clocks nobody keeps them
    return _UNKNOWN.format(f" ({', '.join(drew)} drew one)" if drew else "", ",".join(drew) or "PACKAGE")


def _proven(explanation: Explanation, suspects: Sequence[Suspect]) -> list[Suspect]:
    """Return those whose values stand in what the agent sent, and not in what was recorded."""
    got, recorded = explanation.got or "", explanation.recorded or ""
    return [one for one in suspects if any(look in got and look not in recorded for look in looks(one.value))]


def _likely(explanation: Explanation, suspects: Sequence[Suspect]) -> list[Suspect]:
    """Return those of the kind that the difference looks like; choices, which leave no trace, if new."""
    lost = [one for one in suspects if one.kind not in ("library", "moved")]
    if explanation.cause in _CHANCE:
        moved = [one for one in suspects if one.kind == "moved"]
        alike = [[one for one in some if family(one.source) == explanation.cause] for some in (lost, moved)]
        return alike[0] or alike[1]
    if explanation.cause in _GUESSES:
        return [one for one in lost if family(one.source) == "random" and one.fresh]
    return []


def _quote(suspect: Suspect) -> str:
    what = shown(suspect.source, suspect.site)
    draw = f"{what} at {suspect.where}" if suspect.where else f"{what} in {place(suspect.site)}"
    return _SAID[suspect.kind].format(what=what, draw=draw, site=suspect.site)


_SAID = {
    "exhausted": "{draw} was not on the tape",
    "library": "{draw} is a library's own and was not recorded",
    "moved": "{draw} was given what another line of its function drew: a draw was added before it",
    "shape": "{draw} asks for another kind of value than was recorded",
    "pooled": "{draw} is drawn in a pool of processes, whose jobs go to another worker each time",
    "uncovered": "{what} is not covered here ({site})",
    "prebound": "{site} holds {what} of before the recording began",
}
_REMEDIES = {
    "library": "record with TRACEFORK_DRAWS_INCLUDE={}, or leave this path out: --ignore",
    "uncovered": "leave this path out: --ignore",
    "prebound": "record with `run --draws`, which begins earlier, or leave this path out: --ignore",
    "pooled": "draw it where the job is handed over, or leave this path out: --ignore",
}


def _advice(found: Sequence[Suspect]) -> str:
    kinds = [one.kind for one in found if one.kind in _REMEDIES]
    if not kinds:
        return _ANEW
    first = next(one for one in found if one.kind == kinds[0])
    return _REMEDIES[first.kind].format(place(first.site))
