"""What a run's processes said by clients that are not captured, in words."""

from __future__ import annotations

from collections.abc import Iterable

from tracefork_otel.recording.unseen import connected
from tracefork_otel.store.records import Note


def unseen(notes: Iterable[Note]) -> tuple[str, ...]:
    """Return who connected where and how often, one line each; a process tells it again as it counts on."""
    programs: dict[str, None] = {}
    counts: dict[tuple[str, ...], dict[str, int]] = {}
    for note in notes:
        if note.kind == "unseen":
            told = note.attributes
            key = tuple(str(told.get(name, "?")) for name in ("client", "host", "port", "caller"))
            count = told.get("count")
            by_process = counts.setdefault(key, {})
            known = by_process.get(note.process_id, 1)
            by_process[note.process_id] = max(known, count if isinstance(count, int) else 1)
        elif note.kind == "program":
            program, caller = (note.attributes.get(name, "") for name in ("program", "caller"))
            programs[f"the program {program}, which was started{caller}, is not captured"] = None
    lines = list(programs)
    for (client, host, port, caller), by_process in counts.items():
        said = connected(client, host, port, caller, count=sum(by_process.values()))
        lines.append(f"{said}: it is not captured")
    return tuple(lines)
