"""The draws of a run: from its processes' notes onto its tape, and what a replay made of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tracefork_otel.draws.wording import place, shown
from tracefork_otel.store.records import Draw, Note
from tracefork_otel.tape.tape import Tape

_FIRST = re.compile(r"^/([^/]*)#(\d+)")
# How a person reads what a process noted of its draws.
_SAID = {
    "exhausted": "drawn for real, the recording has no more",
    "shape": "drawn for real, another kind of value was recorded",
    "moved": "served on another line of its function: a draw may have been added before it",
    "capped": "more than are kept",
    "uncovered": "not covered",
    "prebound": "bound before the recording began",
    "pooled": "drawn in a pool of processes, whose jobs go to another worker each time",
}
_LOST = ("exhausted", "shape", "capped", "uncovered", "prebound", "pooled")
_UNKEPT = ("capped", "uncovered", "prebound", "pooled")
# What holds of the whole process, however often it was noted.
_FACTS = ("uncovered", "prebound", "capped", "pooled")
# The cause before its consequences.
_KINDS = ("moved", "shape", "uncovered", "prebound", "pooled", "capped", "exhausted")
_LISTED = 3


def draws_of(notes: Iterable[Note]) -> tuple[Draw, ...]:
    """The draws that these notes hold, process by process in order of their first."""
    batches: dict[tuple[str, object], Note] = {}
    for note in notes:
        if note.kind == "draws":
            batches.setdefault((note.process_id, note.attributes.get("batch")), note)
    processes: dict[str, list[Note]] = {}
    for note in sorted(batches.values(), key=_order):
        processes.setdefault(note.process_id, []).append(note)
    numbers = Counter[str]()
    found: list[Draw] = []
    for batch in processes.values():
        root = str(batch[0].attributes["root"])
        name = f"{root}#{numbers[root]}"
        numbers[root] += 1
        for note in batch:
            found += _of_note(name, note.attributes)
    return tuple(found)


def _order(note: Note) -> tuple[int, int]:
    batch: Any = note.attributes["batch"]
    return note.time_ns, batch


def _of_note(process: str, attributes: Any) -> Iterator[Draw]:
    streams = attributes["streams"]
    for number, _, value in attributes["values"]:
        lane, source, site, line = streams[number]
        yield Draw(process=process, lane=lane, source=source, site=site, line=line, value=value)


def of_one_call(draws: Iterable[Draw]) -> tuple[Draw, ...]:
    """The draws of one agent call among several of a process, its lanes numbered as if it were alone."""
    numbers: dict[str, dict[str, int]] = {}
    found: list[Draw] = []
    for draw in draws:
        first = _FIRST.match(draw.lane)
        lane = draw.lane
        if first is not None:
            seen = numbers.setdefault(first[1], {})
            number = seen.setdefault(first[2], len(seen))
            lane = f"/{first[1]}#{number}{draw.lane[first.end() :]}"
        found.append(
            Draw(
                process=draw.process,
                lane=lane,
                source=draw.source,
                site=draw.site,
                line=draw.line,
                value=draw.value,
            )
        )
    return tuple(found)


def shortfalls(notes: Iterable[Note]) -> Iterator[Note]:
    """A note that says which draws the recording itself did not keep, and why; none if it kept all."""
    listed = list(notes)
    first, why = _unkept(listed)
    if first is not None:
        yield Note(
            kind="incomplete",
            time_ns=first.time_ns,
            trace_id=first.trace_id,
            attributes={"why": f"draws: partial ({why})"},
            process_id=first.process_id,
        )


def recorded_line(notes: Iterable[Note]) -> str | None:
    """How many values a run read, and which of them it could not keep; None if draws were not recorded."""
    listed = [note for note in notes if note.kind == "draws"]
    if not listed:
        return None
    values = [served for note in listed for _, served, _ in _values(note)]
    served = sum(values)
    line = f"{served} of {len(values)} from the tape" if served else f"{len(values)} recorded"
    _, why = _unkept(listed)
    return line + (f", partial ({why})" if why else "")


def _values(note: Note) -> Any:
    """(stream, served, value) of each draw of a note."""
    return note.attributes["values"]


def _unkept(notes: Iterable[Note]) -> tuple[Note | None, str]:
    """The first note that tells of draws that were not kept, and what all of them tell."""
    first: Note | None = None
    told: dict[str, dict[str, None]] = {}
    for note in sorted(notes, key=lambda one: one.time_ns):
        for kind, source, site, where, _ in _told(note):
            if kind in _UNKEPT:
                first = first or note
                said = f"not covered: {site}" if kind == "uncovered" else _SAID[kind]
                what = shown(source, site) if kind == "uncovered" else _place(kind, source, site, where)
                told.setdefault(said, {})[what] = None
    return first, "; ".join(f"{_listing(list(what))} {said}" for said, what in told.items())


def _listing(what: Sequence[str]) -> str:
    more = f" and {len(what) - _LISTED} more" if len(what) > _LISTED else ""
    return ", ".join(what[:_LISTED]) + more


def _told(note: Note) -> Iterator[tuple[str, str, str, str, int]]:
    """(kind, source, site, file and line, count) of what a process noted of its draws."""
    if note.kind == "draws":
        attributes: Any = note.attributes
        for kind, source, site, count, *where in attributes["notes"]:
            yield kind, source, site, where[0] if where else "", count


def _place(kind: str, source: str, site: str, where: str = "") -> str:
    what = shown(source, site)
    if kind == "uncovered":
        return f"{what} ({site})"
    return f"{what} at {where}" if where else f"{what} in {place(site)}"


def account(tape: Tape, notes: Sequence[Note]) -> str | None:
    """What became of the tape's draws in a replay, as one line; None if there is nothing to tell."""
    told: Counter[tuple[str, str, str, str]] = Counter()
    served: Counter[tuple[str, str]] = Counter()
    lanes: set[str] = set()
    for note in notes:
        if note.kind == "draws":
            attributes: Any = note.attributes
            for number, was_served, _ in attributes["values"]:
                lane, source, site, _ = attributes["streams"][number]
                lanes.add(lane)
                if was_served:
                    served[source, site] += 1
            for kind, source, site, where, count in _told(note):
                told[kind, source, site, where] += count
    if not (tape.draws or told):
        return None
    count = sum(served.values())
    # A tool whose result was served did not run, and so drew nothing.
    asked = [draw for draw in tape.draws if "/tool:" not in draw.lane or draw.lane in lanes]
    spared = len(tape.draws) - len(asked)
    recorded = Counter((draw.source, draw.site) for draw in asked)
    lost = any(kind in _LOST for kind, *_ in told) or any(n > served[place] for place, n in recorded.items())
    found: list[tuple[str, str, int]] = []
    if lost:  # a line that merely moved, all else being equal, is no news
        first = sorted(told.items(), key=lambda one: _KINDS.index(one[0][0]))
        found = [(_place(*key), key[0], n) for key, n in first]
    found += [
        (_place("left", source, site), "left", n - served[source, site])
        for (source, site), n in recorded.items()
        if n > served[source, site]
    ]
    line = f"{count} of {len(asked)} served" if count < len(asked) else f"{count} served"
    if spared:
        line += f", {spared} of tools that did not run"
    if not found:
        return line
    parts = [
        f"{f'{n} x ' if kind not in _FACTS else ''}{what} {_SAID.get(kind, 'never asked for')}"
        for what, kind, n in found[:_LISTED]
    ]
    more = f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return f"{line}, partial ({'; '.join(parts)}{more})"
