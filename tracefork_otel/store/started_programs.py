"""Programs that a process started and took for ones that do not record, some of which did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .records import Note, ProcessStarted

_REAPER = 1
"""Whose child a process becomes when its parent ends before it."""


def unrecorded(
    notes: Iterable[Note], heads: Mapping[str, ProcessStarted], recorded: Iterable[ProcessStarted]
) -> list[Note]:
    """Return the notes but those of programs that recorded after all; `heads` says who wrote each note."""
    by_pid: dict[int, list[ProcessStarted]] = {}
    for process in recorded:
        by_pid.setdefault(process.pid, []).append(process)

    def did_record(note: Note) -> bool:
        pid, parent = note.attributes.get("pid"), heads.get(note.process_id)
        if not isinstance(pid, int) or parent is None:
            return False
        return any(_is_child(process, parent) for process in by_pid.get(pid, ()))

    return [note for note in notes if not did_record(note)]


def _is_child(process: ProcessStarted, parent: ProcessStarted) -> bool:
    # Containers and later runs count processes anew, so that a number alone tells nothing.
    return (
        process.launch_id == parent.launch_id
        and process.attributes.get("host") == parent.attributes.get("host")
        and process.ppid in (parent.pid, _REAPER)
        and process.started_ns >= parent.started_ns
    )
