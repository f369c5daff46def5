"""Which segments of a store are live: one JSON file, swapped atomically under a lock."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from errno import EISDIR, ELOOP
from pathlib import Path
from typing import Any, NamedTuple

from .. import shapes
from ..errors import StoreError, newer_format
from ..files import check_own, open_lock, open_whole, read_whole, store_folder, sync_directory, write_whole
from . import columns, views
from .wal_reading import NAME

FORMAT = 1
FILE = "MANIFEST.json"
VIEWS = "views.sql"
LOCK = ".lock"
_VIEW_SOURCES = ("views.sql", "blame.sql")
"""What it is made of, files of this package."""
RECORDED = ("spans", "exchanges", "chunks")
"""The kinds of a segment's files from which all else can be read again."""
KINDS = (*RECORDED, "facts")
GRACE_NS = 10 * 60 * 1_000_000_000
"""So long a segment that was replaced stays on disk: a reader may know it from an older manifest."""
_MAKING_NS = 24 * 3600 * 1_000_000_000
"""A copy that its maker never named goes after so long: the largest merge takes minutes."""
_MAKING_SECONDS = 60
"""A segment is named by the manifest within seconds of its files, a merged one when its facts are there."""
TRACES = 64
"""A segment of no more traces than this lists them, so that a run is found without opening every segment."""
TRACE_DIGITS = 12
"""Hex digits of a listed trace id: enough to tell runs apart, a third of the size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentEntry:
    """One live segment."""

    id: str
    exchanges: int
    spans: int
    bytes: int
    """Of all its files but facts."""
    started_ns: int
    ended_ns: int
    wals: tuple[str, ...] = ()
    """Names of WALs that it was sealed from and that could still be on disk."""
    facts: int | None = None
    """Version of its facts file; None if it has none."""
    traces: tuple[str, ...] | None = None
    """First digits of the trace ids of its exchanges and spans; None if they are too many to list."""
    format: int = columns.FORMAT
    sha256: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    """Digests of its files by kind, for Parquet has checksums of pages but not of its footer."""
    unpriced: str | None = None
    """The version of the price list by which calls in its facts have no price; None if all have one."""

    def may_hold(self, trace_id: str) -> bool:
        """Return False only if no row of that trace is in the segment."""
        return self.traces is None or trace_id[:TRACE_DIGITS] in self.traces

    def lists(self, prefix: str) -> bool:
        """Return whether it says that it holds a trace whose id begins so."""
        return any(listed.startswith(prefix[:TRACE_DIGITS]) for listed in self.traces or ())

    def file(self, store: Path, kind: str) -> Path:
        """Return the path of its file of a kind (`spans`, `exchanges`, `chunks`, `facts`)."""
        return file_of(store, self.id, kind)

    def why_newer(self, store: Path) -> str | None:
        """Return why this version cannot read it; None if it can."""
        if self.format <= columns.FORMAT:
            return None
        return newer_format(self.file(store, "exchanges"), "segment", self.format, columns.FORMAT)

    def why_changed(self, store: Path, kind: str) -> str | None:
        """Return why its file of a kind is not the one that was written; None if it is, or no digest says."""
        path, expected = self.file(store, kind), self.sha256.get(kind)
        if expected is None:
            return None
        try:
            found = digest(path)
        except OSError as error:
            return f"{path}: the file of a segment cannot be read: {error.strerror or error}"
        if found == expected:
            return None
        return f"{path}: the file of a segment has changed since it was written: its sha256 is another one"


class FactsFile(NamedTuple):
    """The facts of a segment as they were written."""

    version: int
    sha256: str
    unpriced: str | None = None
    """As in `SegmentEntry`."""

    def of(self, entry: SegmentEntry) -> SegmentEntry:
        """Return the segment with these facts."""
        digests = {**entry.sha256, "facts": self.sha256}
        return replace(entry, facts=self.version, sha256=digests, unpriced=self.unpriced)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """A segment that is live no more; its files go after the grace."""

    id: str
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A version of the list of live segments."""

    version: int = 0
    segments: tuple[SegmentEntry, ...] = ()
    retired: tuple[Retired, ...] = ()

    @property
    def wals(self) -> frozenset[str]:
        """Names of WALs whose records are in a segment, even if the files are still there."""
        return frozenset(name for entry in self.segments for name in entry.wals)


def load(store: Path) -> Manifest:
    """Return the current manifest, empty if there is none; raise StoreError for a file that is not one."""
    path = Path(store) / FILE
    try:
        return _parsed(path, read_whole(path))
    except FileNotFoundError:
        return Manifest()
    except OSError as error:
        raise StoreError(f"{path}: the manifest cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(
            f"{path}: this is not a manifest of tracefork-otel ({error}); see `doctor`"
        ) from error


def _parsed(path: Path, text: bytes) -> Manifest:
    data = json.loads(text)
    if (written := _FORMAT(data)["format"]) > FORMAT:
        raise StoreError(newer_format(path, "manifest", written, FORMAT))
    found = _MANIFEST(data)
    return Manifest(
        version=found["version"],
        segments=tuple(SegmentEntry(**item) for item in found["segments"]),
        retired=tuple(Retired(**item) for item in found["retired"]),
    )


def strays(store: Path, current: Manifest) -> list[Path]:
    """Return the files of segments that the manifest does not name, being written or left, whole or not."""
    known = {entry.id for entry in current.segments} | {item.id for item in current.retired}
    whole = (store / "segments").glob("[!.]*.parquet")
    return [
        *(path for path in whole if path.name.removesuffix(".parquet").rpartition(".")[0] not in known),
        *(store / "segments").glob(".*.tmp"),
    ]


def names(store: Path, segment_id: str) -> bool:
    """Return whether the manifest knows the segment, be it live or retired."""
    current = load(store)
    return segment_id in {item.id for item in (*current.segments, *current.retired)}


def unnamed(store: Path, current: Manifest) -> list[str]:
    """Return the ids of segments whose files are whole and that the manifest does not name, oldest first.

    Those of this moment are left out where somebody may be about to name them.
    """
    found: dict[str, set[str]] = {}
    newest = 0.0
    for path in strays(store, current):
        segment_id, kind = path.name.removesuffix(".parquet").rpartition(".")[::2]
        if kind not in RECORDED:
            continue
        try:
            status = path.lstat()
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            found.setdefault(segment_id, set()).add(kind)
            newest = max(newest, status.st_mtime)
    being_made = current.version > 0 or any((store / "wal").glob("*.wal"))
    # One of tomorrow was made by a clock that has been set back.
    if being_made and abs(time.time() - newest) < _MAKING_SECONDS:
        return []
    return sorted(segment_id for segment_id, kinds in found.items() if kinds == set(RECORDED))


def is_damaged(store: Path) -> bool:
    """Return whether its place holds no manifest; StoreError if it is newer, or not ours to read."""
    path = Path(store) / FILE
    try:
        _parsed(path, read_whole(path))
    except FileNotFoundError:
        return False
    except OSError as error:
        if path.is_file():
            raise StoreError(f"{path}: the manifest cannot be read: {error.strerror or error}") from error
        return True
    except (ValueError, RecursionError):
        return True
    return False


def commit(
    store: Path,
    *,
    add: Sequence[SegmentEntry] = (),
    remove: Collection[str] = (),
    facts: Mapping[str, FactsFile] | None = None,
    making: str | None = None,
    at_once: bool | Collection[str] = False,
) -> Manifest:
    """Put the next manifest in place, on disk, with views.sql beside it, and return it.

    Segments of `remove` are retired (their files go after ten minutes; those of `at_once`, or of all that are
    retired, go with the next commit) and `facts` tells of new facts files. `making` is the id
    of a copy that is about to be written: unless it is added, its files go like those of a retired one.
    Raise StoreError, and change nothing, if a segment to remove or to change is not live any more.
    """
    store = Path(store)
    try:
        store_folder(store)
        with _locked(store):
            now = time.time_ns()
            manifest = _next(store, load(store), add, frozenset(remove), facts or {}, now)
            if making is not None:
                left = Retired(id=making, at_ns=now + _MAKING_NS)
                manifest = replace(manifest, retired=(*manifest.retired, left))
            if at_once:
                retired = tuple(
                    replace(item, at_ns=0) if at_once is True or item.id in at_once else item
                    for item in manifest.retired
                )
                manifest = replace(manifest, retired=retired)
            _refresh_views(store)
            # Last: what fails before it has changed nothing that a reader sees.
            _write(store / FILE, text_of(manifest))
            return manifest
    except OSError as error:
        raise StoreError(
            f"{store / FILE}: the manifest cannot be written: {error.strerror or error}"
        ) from error


def read(name: str, text: bytes) -> Manifest:
    """Return the manifest that is written there; raise StoreError, naming it, where it is none."""
    try:
        return _parsed(Path(name), text)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{name}: this is not a manifest of tracefork-otel ({error})") from error


def text_of(manifest: Manifest) -> bytes:
    """Return the file of a manifest."""
    return json.dumps(_plain(manifest), separators=(",", ":")).encode()


def adopt(store: Path, segments: Sequence[SegmentEntry]) -> None:
    """Have the folder's manifest name these segments too, each with the facts that are known of it here."""
    with _locked(store):
        before = load(store)
        known = {entry.id: entry for entry in before.segments}
        listed = tuple(
            entry
            if (here := known.get(entry.id)) is None or here.facts is None
            else FactsFile(here.facts, here.sha256.get("facts", ""), here.unpriced).of(entry)
            for entry in segments
        )
        named = {entry.id for entry in segments}
        listed = (*(entry for entry in before.segments if entry.id not in named), *listed)
        if before.version and listed == before.segments:
            return
        _refresh_views(store)
        _write(store / FILE, text_of(Manifest(version=before.version + 1, segments=listed)))


def discard(store: Path, segment_id: str) -> None:
    """Remove the files of a segment that could not be committed."""
    # It may have failed after the new manifest was in place.
    if segment_id not in {live.id for live in load(store).segments}:
        _remove(store, segment_id)


def file_of(store: Path, segment_id: str, kind: str) -> Path:
    """Return the path of the file of a kind of the segment of that id."""
    return store / "segments" / f"{segment_id}.{kind}.parquet"


def _remove(store: Path, segment_id: str) -> bool:
    """Remove the files of a segment; return whether none is left. What is no file there is not ours."""
    gone = True
    for kind in KINDS:
        path = file_of(store, segment_id, kind)
        try:
            path.unlink(missing_ok=True)
        except OSError:
            gone = gone and path.is_dir()
    return gone


def _next(
    store: Path,
    current: Manifest,
    add: Sequence[SegmentEntry],
    remove: frozenset[str],
    facts: Mapping[str, FactsFile],
    now: int,
) -> Manifest:
    live = {entry.id for entry in current.segments}
    missing = (remove | facts.keys()) - live
    if missing:
        raise StoreError(
            f"{store / FILE}: segments {', '.join(sorted(missing))} were replaced meanwhile; try again"
        )
    gone = [entry for entry in current.segments if entry.id in remove]
    added = list(add)
    wals = [
        name
        for entry in gone
        for name in entry.wals
        if _recent(entry.id, now) or (store / "wal" / name).exists()
    ]
    if added:
        added[0] = replace(added[0], wals=(*added[0].wals, *wals))
    else:
        # With its last mention gone a WAL would be sealed again, and what was dropped would come back.
        for name in wals:
            (store / "wal" / name).unlink(missing_ok=True)
    kept = [entry for entry in current.segments if entry.id not in remove]
    named = {entry.id for entry in (*kept, *added)}
    retired = [item for item in current.retired if item.id not in named]
    for at, entry in enumerate(kept):
        if entry.id in facts:
            kept[at] = facts[entry.id].of(entry)
    return Manifest(
        version=current.version + 1,
        segments=(*kept, *added),
        retired=(*_sweep(store, retired, now), *(Retired(id=entry.id, at_ns=now) for entry in gone)),
    )


def _sweep(store: Path, retired: Sequence[Retired], now: int) -> list[Retired]:
    """Return those whose grace goes on, and remove the files of the others, or return them too."""
    return [item for item in retired if now - item.at_ns < GRACE_NS or not _remove(store, item.id)]


def _recent(segment_id: str, now: int) -> bool:
    # A reader that read a WAL before it was sealed looks its name up in the manifest afterwards.
    made_ms = segment_id.partition("-")[0]
    return made_ms.isdigit() and now - int(made_ms) * 1_000_000 < GRACE_NS


_in_process = threading.Lock()


def _reset_lock() -> None:
    # Not held over the fork instead: the application would wait for whoever has the store's lock.
    global _in_process
    _in_process = threading.Lock()


os.register_at_fork(after_in_child=_reset_lock)


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    # A record lock, as against the flock of WALs: a child forked meanwhile by another thread does not inherit
    # it, and so cannot keep it for the rest of its life. Such locks do not part threads, hence the second
    # one.
    for folder in ("wal", "segments"):  # whose files may go: never those of a folder elsewhere
        check_own(store / folder)
    with _in_process:
        fd = _lock_of(store / LOCK)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _lock_of(path: Path) -> int:
    """Return the descriptor of the file that is locked; StoreError where something else is in its place."""
    try:
        fd = open_lock(path)
    except OSError as error:
        if error.errno not in (ELOOP, EISDIR):
            raise
        what = "a link, which is not followed" if error.errno == ELOOP else "a folder"
    else:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        what = "no regular file"
    raise StoreError(
        f"{path}: this must be a file, and is {what}, so the store cannot be locked and nothing was changed: "
        "delete it, and it is made anew"
    )


def _write(path: Path, data: bytes) -> None:
    write_whole(path, data, synced=True)
    sync_directory(path.parent)


def digest(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with open_whole(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refresh_views(store: Path) -> None:
    directory = str(store.resolve()).replace("'", "''")
    lines = [f"SET VARIABLE tracefork_store='{directory}';", *map(views.source, _VIEW_SOURCES)]
    text = "\n".join(lines).encode()
    path = store / VIEWS
    if not path.is_file() or path.read_bytes() != text:
        _write(path, text)


def _plain(manifest: Manifest) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": manifest.version,
        "segments": [
            {
                name: getattr(entry, name)
                for name in SegmentEntry.__dataclass_fields__
                # Only what is not of the first format says so.
                if name != "format" or entry.format != 1
            }
            for entry in manifest.segments
        ],
        "retired": [{"id": item.id, "at_ns": item.at_ns} for item in manifest.retired],
    }


# Ids and names become paths inside the store, so they are of this form and hold nothing that leads out of it.
_ID = shapes.text(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}", "the id of a segment")
_COUNT = shapes.number()
_TIME = shapes.number(-(2**63))
_FORMAT = shapes.record({"format": _COUNT})
_ENTRY = shapes.record(
    {
        "id": _ID,
        "exchanges": _COUNT,
        "spans": _COUNT,
        "bytes": _COUNT,
        "started_ns": _TIME,
        "ended_ns": _TIME,
    },
    {
        "wals": shapes.many(shapes.text(NAME.pattern, "the name of a log")),
        "facts": shapes.optional(_COUNT),
        "traces": shapes.optional(shapes.many(shapes.string())),
        "format": _COUNT,
        "sha256": shapes.named(shapes.text()),
        "unpriced": shapes.optional(shapes.text()),
    },
)
_MANIFEST = shapes.record(
    {
        "version": _COUNT,
        "segments": shapes.many(_ENTRY),
        "retired": shapes.many(shapes.record({"id": _ID, "at_ns": _TIME})),
    }
)
