"""The run that a parent process has open, for a child that was not told of one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..store.records import ExchangeStarted, SpanRecord

GENERATIONS = 8
"""How far up a parent is looked for: a pool's helper or a shell may stand in between."""


def open_run(store: Path) -> tuple[tuple[int, int, int], str] | None:
    """Return the root that the nearest recording ancestor has open, and its run; None where it has none.

    The root is told by trace id, span id and flags.

    Children that are spawned or started as programs share nothing with their parent but the store.
    """
    folder = store / "wal"
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    for pid in ancestors() if names else ():
        root = _open_root([folder / name for name in names if name.startswith(f"{pid}-")])
        if root is not None:
            return root
    return None


def _open_root(paths: Sequence[Path]) -> tuple[tuple[int, int, int], str] | None:
    from ..store.wal import is_live
    from ..store.wal_reading import read_wal

    paths = [path for path in paths if path.suffix == ".wal"]
    if not any(is_live(path) for path in paths):
        return None  # a number that was used before
    opened: dict[str, SpanRecord] = {}
    runs: dict[str, str] = {}
    for path in paths:
        for record in read_wal(path, keep=lambda span, side, body: b"").records:
            if isinstance(record, SpanRecord):
                if record.ended_ns is not None:
                    opened.pop(record.span_id, None)
                elif record.attributes.get("tracefork.run.kind") is not None:  # how a process was started
                    opened[record.span_id] = record
            elif isinstance(record, ExchangeStarted) and record.span_trace_id is not None:
                runs[record.span_trace_id] = record.trace_id
    if len(opened) != 1:
        return None  # requests of a server, say: no telling which of them started the child
    (root,) = opened.values()
    place = int(root.trace_id, 16), int(root.span_id, 16), 1
    return place, runs.get(root.trace_id, root.trace_id)


def ancestors(of: int | None = None) -> Iterator[int]:
    """Yield the processes above one, this one's where none is given, the nearest first."""
    pid = os.getppid() if of is None else _parent(of)
    for _ in range(GENERATIONS):
        if pid <= 1:
            return
        yield pid
        pid = _parent(pid)


def _parent(pid: int) -> int:
    try:
        # Behind the name, which may hold anything: state, parent.
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0  # no such folder: the direct parent has to do
