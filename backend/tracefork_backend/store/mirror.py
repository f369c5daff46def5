"""A store in a bucket, as a folder of this machine: what is there is fetched, what is new here is pushed."""

from __future__ import annotations

import hashlib
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from tracefork_otel.errors import StoreError
from tracefork_otel.files import own_folder, store_folder, write_whole
from tracefork_otel.store import manifest, sealing, wal
from tracefork_otel.store.bucket import Bucket, Part, push_dead
from tracefork_otel.store.manifest import Manifest, SegmentEntry
from tracefork_otel.store.spool import MIRROR_MARK, is_of_bucket, mirror_of

_AT_ONCE = 16
_TOGETHER = 500
"""So many WALs are sealed at once."""
_ATTEMPTS = 50
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Sealed:
    """What `seal` did to a bucket."""

    wals: int
    segments: int
    problems: tuple[str, ...]


def pull(url: str) -> Path:
    """Return the folder that now holds what the bucket does; raise StoreError if it cannot be fetched."""
    bucket = Bucket(url)
    store = mirror_of(url)
    store_folder(store)
    for folder in ("wal", "segments"):
        own_folder(store / folder)
    if not is_of_bucket(store):
        write_whole(store / MIRROR_MARK, url.encode())
    for _ in range(_ATTEMPTS):
        # WALs before the manifest: one that is sealed in between is found in the manifest.
        parts = bucket.parts()
        listed, _ = _manifest(bucket)
        _each(lambda entry: _fetch(bucket, store, entry), listed.segments)
        fresh = [part for part in parts if part.name not in listed.wals]
        if all(_each(lambda part: _fetch_wal(bucket, store, part), fresh)):
            break
    else:
        raise StoreError(f"{url}: the store changes faster than it can be read; try again")
    manifest.adopt(store, listed.segments)
    for path in wal.wal_files(store):
        if path.name in listed.wals:
            path.unlink(missing_ok=True)
    return store


def push(url: str) -> int:
    """Store in the bucket what commands recorded into its mirror, and return of how many WALs that is."""
    store = mirror_of(url)
    if not wal.wal_files(store):
        return 0
    bucket = Bucket(url)
    known = {part.name for part in bucket.parts()} | _manifest(bucket)[0].wals
    return push_dead(store, bucket, known=frozenset(known), keep=True)


def seal(url: str) -> Sealed:
    """Make segments of the WALs in the bucket, each WAL in one; any number of processes may do so at once."""
    bucket = Bucket(url)
    bucket.check()
    problems: list[str] = []
    segments = wals = 0
    parts = bucket.parts()
    listed, _ = _manifest(bucket)
    # The names stay in the manifest for ever, so one that is pushed a second time is known to be stored.
    for batch in _batches(_ended(parts, listed.wals)):
        entries, why = _sealed(bucket, batch)
        problems += why
        segments += len(entries)
        wals += sum(len(entry.wals) for entry in entries)
    listed, _ = _manifest(bucket)
    _each(lambda part: bucket.delete(part.key), [part for part in parts if part.name in listed.wals])
    return Sealed(wals, segments, tuple(problems))


def _manifest(bucket: Bucket) -> tuple[Manifest, object]:
    text, known = bucket.manifest()
    if text is None:
        return Manifest(), known
    return manifest.read(f"{bucket.url}/{manifest.FILE}", text), known


def _key(entry: SegmentEntry, kind: str) -> str:
    return f"segments/{entry.id}.{kind}.parquet"


def _fetch(bucket: Bucket, store: Path, entry: SegmentEntry) -> None:
    for kind in manifest.RECORDED:
        path = entry.file(store, kind)
        if path.exists():
            continue
        data = bucket.get(_key(entry, kind))
        if data is None:
            raise StoreError(
                f"{bucket.url}/{_key(entry, kind)}: the manifest names this file, and it is gone"
            )
        if hashlib.sha256(data).hexdigest() != entry.sha256.get(kind):
            raise StoreError(
                f"{bucket.url}/{_key(entry, kind)}: this is not the file that was written: its sha256 is "
                "another one than the manifest says"
            )
        write_whole(path, data)


def _fetch_wal(bucket: Bucket, store: Path, part: Part) -> bool:
    """Put the WAL into the folder; return False if it is in the bucket no more."""
    path = store / "wal" / part.name
    if path.exists():
        return True
    data = bucket.wal(part)
    if data is None:
        return False
    write_whole(path, data)
    return True


def _each(do: Callable[[_T], object], items: Sequence[_T]) -> list[object]:
    if not items:
        return []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(do, items))


def _ended(parts: Iterable[Part], stored: frozenset[str]) -> list[list[Part]]:
    """Return the WALs that are in no segment yet by process, of those processes of which all are there."""
    by_process: dict[str, list[Part]] = {}
    for part in parts:
        by_process.setdefault(part.process, []).append(part)
    found: list[list[Part]] = []
    for process, group in by_process.items():
        here = {part.index for part in group}
        end = max((part.index for part in group if part.last), default=-1)
        fresh = [part for part in group if part.name not in stored]
        whole = all(at in here or f"{process}-{at}.wal" in stored for at in range(end + 1))
        if fresh and whole and end == max(here):
            found.append(fresh)
    return found


def _batches(processes: Iterable[list[Part]]) -> Iterable[list[Part]]:
    batch: list[Part] = []
    for group in processes:
        if batch and len(batch) + len(group) > _TOGETHER:
            yield batch
            batch = []
        batch.extend(group)
    if batch:
        yield batch


def _sealed(bucket: Bucket, batch: Sequence[Part]) -> tuple[list[SegmentEntry], list[str]]:
    """Return the segments that the WALs are in now, and why others are in none."""
    with tempfile.TemporaryDirectory(prefix="tracefork-seal-") as folder:
        store = Path(folder)
        own_folder(store / "wal")
        _each(lambda part: _fetch_wal(bucket, store, part), batch)
        problems = sealing.seal_dead(store)
        entries = list(manifest.load(store).segments)
        for entry in entries:
            for kind in manifest.RECORDED:
                # Of an id of its own: one that is there already is the same, its answer was lost.
                bucket.put_new(_key(entry, kind), entry.file(store, kind).read_bytes())
    return _committed(bucket, entries), problems


def _committed(bucket: Bucket, entries: Sequence[SegmentEntry]) -> list[SegmentEntry]:
    """Name the segments in the manifest, but for those of which somebody else stored a WAL meanwhile."""
    for attempt in range(_ATTEMPTS):
        listed, known = _manifest(bucket)
        live = {entry.id for entry in listed.segments}
        # A swap whose answer was lost has named them already.
        others = frozenset(
            name for one in listed.segments if one.id not in _ids(entries) for name in one.wals
        )
        ours = [entry for entry in entries if others.isdisjoint(entry.wals)]
        fresh = [entry for entry in ours if entry.id not in live]
        after = replace(listed, version=listed.version + 1, segments=(*listed.segments, *fresh))
        if not fresh or bucket.swap(manifest.text_of(after), known):
            for entry in entries:
                if entry not in ours and entry.id not in live:
                    for kind in manifest.RECORDED:
                        bucket.delete(_key(entry, kind))
            return ours
        time.sleep(random.uniform(0, 0.05 * (1 + min(attempt, 10))))
    raise StoreError(f"{bucket.url}: others change the manifest faster than it can be swapped; try again")


def _ids(entries: Iterable[SegmentEntry]) -> frozenset[str]:
    return frozenset(entry.id for entry in entries)
