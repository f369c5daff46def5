"""What repairs kept of segments: which of it goes with runs that are removed."""

from __future__ import annotations

import itertools
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from tracefork_otel.errors import StoreError
from tracefork_otel.files import sync_directory
from tracefork_otel.store import manifest, sealing, segment
from tracefork_otel.store.manifest import SegmentEntry

from .keeping import KEPT, KeptEntry, Key, bare, kept_ids, key_of, keys_of
from .snapshot import why_spoiled


def to_drop(store: Path, without: sealing.Without, live: Sequence[SegmentEntry]) -> list[Path]:
    """Return the files of kept segments that hold what is left out.

    What such a segment holds of others, not intact in a live one, stays in a new one beside it. Raise
    StoreError, naming the segment, where it cannot be read.
    """
    files: list[Path] = []
    intact: set[Key] | None = None
    folder = store / KEPT
    try:
        found = kept_ids(store)
    except OSError as error:
        raise StoreError(
            f"nothing was removed: {folder}/ cannot be read, and may hold it too: move it out ({error})"
        ) from error
    making = {item.id for item in manifest.load(store).retired if item.at_ns > time.time_ns()}
    for segment_id in found:
        entry = bare(segment_id, KeptEntry)
        copies = [path for kind in manifest.KINDS if (path := entry.file(store, kind)).exists()]
        if segment_id in making and not {entry.file(store, kind) for kind in manifest.RECORDED} <= {*copies}:
            files += copies  # a removal was killed as it made it, and what it was made of is still there
            continue
        try:
            if not _holds(store, entry, without):
                continue
            if intact is None:
                intact = _intact(store, live)
            others = itertools.chain.from_iterable(sealing.records_but(store, entry, without))
            if not intact.issuperset(map(key_of, others)):
                _stay(store, entry, without)
        except StoreError as error:
            moved = f"mv {shlex.quote(str(folder / segment_id))}.* WHERE-YOU-LIKE"
            raise StoreError(
                f"nothing was removed: {folder / segment_id}.* may hold it too, and cannot be read: {error}; "
                f"move these files out of the store, or delete them: {moved}"
            ) from error
        files += copies
    return files


def _stay(store: Path, entry: SegmentEntry, without: sealing.Without) -> None:
    """Keep a copy of what a kept segment holds, but for what is left out."""
    if why := why_spoiled(store, entry):
        raise StoreError(why)
    if (made := sealing.rewritten(store, entry, without)) is not None:
        for kind in manifest.RECORDED:
            os.rename(made.file(store, kind), store / KEPT / made.file(store, kind).name)
        sync_directory(store / KEPT)


def _holds(store: Path, entry: SegmentEntry, without: sealing.Without) -> bool:
    """Return whether a record of one of the runs is in the segment; StoreError if that cannot be known."""
    for kind in manifest.RECORDED:
        if not (path := entry.file(store, kind)).exists():
            raise StoreError(f"{path} is missing")
    spans, processes, notes = segment.read_records(store, entry)
    return (
        any(one.trace_id in without.traces for kind in (spans, notes) for one in kind)
        or any(not without.spares(one.launch_id, one.process_id) for one in processes)
        or any(one.trace_id in without.traces for one in segment.read_exchanges(store, entry))
    )


def _intact(store: Path, live: Sequence[SegmentEntry]) -> set[Key]:
    """Return what these segments hold of which nothing is damaged."""
    found: set[Key] = set()
    for entry in live:
        if why_spoiled(store, entry) is None:
            for one in segment.read_exchanges(store, entry):
                if not one.damage:
                    found.update(keys_of(one))
            for kind in segment.read_records(store, entry):
                found.update(map(key_of, kind))
    return found
