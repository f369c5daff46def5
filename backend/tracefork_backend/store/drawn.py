"""What the `draws` notes of a run's processes tell: the values read, and which of them were not kept."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from tracefork_otel.draws.wording import place, shown
from tracefork_otel.store.records import Note
from tracefork_otel.tape.reads import Draw

SAID = {
    "moved": "served on another line of its function: a draw may have been added before it",
    "shape": "drawn for real, another kind of value was recorded",
    "uncovered": "not covered",
    "prebound": "bound before the recording began",
    "pooled": "drawn in a pool of processes, whose jobs go to another worker each time",
    "capped": "more than are kept",
    "exhausted": "drawn for real, the recording has no more",
}
"""How a person reads what a process noted of a draw, causes before their consequences."""
UNKEPT = frozenset(("uncovered", "prebound", "pooled", "capped"))
"""What keeps draws off the tape; it holds of a whole process, however often it was noted."""
_FIRST = re.compile(r"^/([^/]*)#(\d+)")
_LISTED = 3


class Remark(NamedTuple):
    """What a process noted of a draw."""

    kind: str
    source: str
    site: str
    where: str = ""
    """File and line, where they say more than the site."""

    @property
    def subject(self) -> str:
        """The draw, as a person looks for it in the agent's code."""
        what = shown(self.source, self.site)
        if self.kind == "uncovered":
            return f"{what} ({self.site})"
        return f"{what} at {self.where}" if self.where else f"{what} in {place(self.site)}"


def remarks(notes: Iterable[Note]) -> Iterator[tuple[Remark, int]]:
    """Yield what these notes remark on draws, each with how often."""
    for note in _of_draws(notes):
        for kind, source, site, count, *where in note.attributes["notes"]:
            yield Remark(kind, source, site, *where), count


def values(notes: Iterable[Note], process: str = "") -> Iterator[tuple[Draw, bool]]:
    """Yield the draws of these notes of one process, each with whether a tape served it."""
    for note in _of_draws(notes):
        streams = note.attributes["streams"]
        for number, served, value in note.attributes["values"]:
            lane, source, site, line = streams[number]
            yield Draw(process=process, lane=lane, source=source, site=site, line=line, value=value), served


def _of_draws(notes: Iterable[Note]) -> Iterator[Any]:
    return (note for note in notes if note.kind == "draws")


def draws_of(notes: Iterable[Note]) -> tuple[Draw, ...]:
    """Return the draws that these notes hold, process by process in order of their first."""
    batches: dict[tuple[str, object], Any] = {}
    for note in _of_draws(notes):
        batches.setdefault((note.process_id, note.attributes.get("batch")), note)
    processes: dict[str, list[Any]] = {}
    for note in sorted(batches.values(), key=lambda one: (one.time_ns, one.attributes["batch"])):
        processes.setdefault(note.process_id, []).append(note)
    numbers = Counter[str]()
    found: list[Draw] = []
    for batch in processes.values():
        root = str(batch[0].attributes["root"])
        found += [draw for draw, _ in values(batch, f"{root}#{numbers[root]}")]
        numbers[root] += 1
    return tuple(found)


def of_one_call(draws: Iterable[Draw]) -> Iterator[Draw]:
    """Yield the draws of one agent call among several of a process, lanes numbered as if it were alone."""
    numbers: dict[str, dict[str, int]] = {}
    for draw in draws:
        first = _FIRST.match(draw.lane)
        if first is not None:
            seen = numbers.setdefault(first[1], {})
            number = seen.setdefault(first[2], len(seen))
            draw = replace(draw, lane=f"/{first[1]}#{number}{draw.lane[first.end() :]}")
        yield draw


def shortfalls(notes: Iterable[Note]) -> Iterator[Note]:
    """Yield a note that says which draws the recording itself did not keep, and why; none if it kept all."""
    listed = sorted(_of_draws(notes), key=lambda one: one.time_ns)
    first = next((note for note in listed if _unkept([note])), None)
    if first is not None:
        yield replace(first, kind="incomplete", attributes={"why": f"draws: partial ({_unkept(listed)})"})


def recorded_line(notes: Iterable[Note]) -> str | None:
    """Say how many values a run read, and which it could not keep; None if draws were not recorded."""
    listed = sorted(_of_draws(notes), key=lambda one: one.time_ns)
    if not listed:
        return None
    given = [served for _, served in values(listed)]
    line = f"{sum(given)} of {len(given)} from the tape" if any(given) else f"{len(given)} recorded"
    why = _unkept(listed)
    return line + (f", partial ({why})" if why else "")


def _unkept(notes: Sequence[Note]) -> str:
    told: dict[str, dict[str, None]] = {}
    for remark, _ in remarks(notes):
        if remark.kind == "uncovered":
            told.setdefault(f"not covered: {remark.site}", {})[shown(remark.source, remark.site)] = None
        elif remark.kind in UNKEPT:
            told.setdefault(SAID[remark.kind], {})[remark.subject] = None
    return "; ".join(f"{_listing(list(what))} {said}" for said, what in told.items())


def _listing(what: Sequence[str]) -> str:
    more = f" and {len(what) - _LISTED} more" if len(what) > _LISTED else ""
    return ", ".join(what[:_LISTED]) + more
