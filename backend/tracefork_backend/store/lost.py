"""What processes noted that they lost, in words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tracefork_otel.store.records import Note

_COUNTED = re.compile(r" x\d+(?=;|$)")


@dataclass(frozen=True, slots=True)
class Loss:
    """What one process lost."""

    process_id: str
    records: int
    why: str


def losses(notes: Iterable[Note]) -> tuple[Loss, ...]:
    """Return what was lost, once a process.

    Each of its notes counts what came since the one before, and names all kinds until then.
    """
    found: dict[str, list[Loss]] = {}
    for note in notes:
        if note.kind != "lost":
            continue
        count = note.attributes.get("count", 1)
        records = count if isinstance(count, int) else 1
        why = str(note.attributes.get("why", "no reason was noted"))
        of_process = found.setdefault(note.process_id, [])
        if of_process and _kinds(of_process[-1].why) <= _kinds(why):
            records += of_process.pop().records
        of_process.append(Loss(note.process_id, records, why))
    return tuple(loss for of_process in found.values() for loss in of_process)


def _kinds(why: str) -> set[str]:
    return set(_COUNTED.sub("", why).split("; "))
