"""Files of a store that nobody names: those of others, and what crashes left behind of ours."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tracefork_otel.errors import StoreError
from tracefork_otel.files import open_whole
from tracefork_otel.state.kept import FOLDER
from tracefork_otel.store import manifest, wal
from tracefork_otel.store.codec import MAGIC_LINE
from tracefork_otel.store.spool import MIRROR_MARK, SPOOL_MARK
from tracefork_otel.store.wal_reading import NAME

from ..spelling import counted
from . import compacting, healing, keeping, repairing, shown

_LEFT_BY_FORKS = (".fork-", ".replay-")
"""How folders in which forks and replays run begin; `owner` in them is locked while somebody is at work."""
OWN_FILES = frozenset(
    {manifest.FILE, manifest.VIEWS, ".lock", compacting.LOCK, shown.FILE, MIRROR_MARK, SPOOL_MARK}
)
OWN_FOLDERS = frozenset({"wal", "segments", "blame", keeping.KEPT, FOLDER})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileProblem:
    """A file that is not what it should be."""

    path: str
    what: str
    """`unreadable`; `unnamed` or `partial` of a segment; `foreign`; `left` where nothing is lost with it."""
    why: str


def leftovers(path: Path) -> Iterator[FileProblem]:
    """Yield files that are none of ours, and what is there of ours though nothing names it."""
    yield from _foreign(path)
    yield from _segments(path)


def _foreign(path: Path) -> Iterator[FileProblem]:
    """Yield files that nobody of ours has put there, and folders of forks that were killed."""
    places = [(path, lambda file: file.name in OWN_FILES or (file.is_dir() and file.name in OWN_FOLDERS))]
    places.append(
        (path / "wal", lambda file: NAME.fullmatch(file.name) or file.name.endswith(".absent.json"))
    )
    places.append((path / "segments", lambda file: _segment_file(file) is not None))
    for folder, known in places:
        for file in sorted(folder.iterdir()) if folder.is_dir() else ():
            if known(file) or file.match(".*.tmp"):
                continue
            if folder == path and file.is_dir() and file.name.startswith(_LEFT_BY_FORKS):
                if (file / "owner").exists() and not wal.is_live(file / "owner"):
                    why = "what a fork or replay that was killed left; `doctor --repair` takes its runs in"
                    yield FileProblem(path=str(file), what="left", why=f"{file}: {why}")
                continue
            if folder.name == "wal" and _is_log(file):
                why = f"{file}: this is a log, not read as its name is not that of one; move it out, or "
                why += (
                    "let a repair take in what it alone holds: call it `1-00000000-0.wal`, `doctor --repair`"
                )
                yield FileProblem(path=str(file), what="unreadable", why=why)
                continue
            why = f"{file}: this is no file of the store; move it out if nobody needs it here"
            yield FileProblem(path=str(file), what="foreign", why=why)


def _is_log(file: Path) -> bool:
    """Return whether the file begins as a log does."""
    try:
        with open_whole(file) as opened:
            return MAGIC_LINE.match(opened.read(64)) is not None
    except OSError:
        return False


def _segment_file(file: Path) -> tuple[str, str] | None:
    """Return the segment and the kind of a file of one; None if its name is not that of one."""
    segment_id, _, kind = file.name.removesuffix(".parquet").rpartition(".")
    return (segment_id, kind) if segment_id and kind in manifest.KINDS else None


def _segments(path: Path) -> Iterator[FileProblem]:
    """Yield the segments that the manifest does not name, and what is lost as long as that is so."""
    listed = manifest.load(path)
    named = {entry.id for entry in listed.segments} | {item.id for item in listed.retired}
    files: dict[str, dict[str, Path]] = {}
    for file in sorted((path / "segments").glob("[!.]*.parquet")):
        if (found := _segment_file(file)) is not None and found[0] not in named:
            files.setdefault(found[0], {})[found[1]] = file
    if not files:
        return
    whole, known = manifest.unnamed(path, listed), healing.hurt(path)[1]
    for segment_id, kinds in files.items():
        first = str(next(iter(kinds.values())))
        alone, problem = _alone(path, segment_id, known)
        if segment_id in whole:
            what, why = "unnamed", "no manifest names this segment (it was lost, or is older): "
            why += f"{alone}, which are not shown; `doctor --repair` takes them in"
            if alone is None:
                what, why = "left", "a crash left this segment before a manifest named it: all that it "
                why += "holds is in others; `doctor --repair` moves it out of the way"
            if problem:
                what, why = "unreadable", f"no manifest names this segment, and it cannot be read: {problem}"
        elif set(kinds) >= set(manifest.RECORDED):
            continue  # it is being made at this moment
        else:
            what, why = _partial(kinds, alone if "exchanges" in kinds else None, listed.version > 0)
        yield FileProblem(path=first, what=what, why=f"{first}: {why}")


def _alone(path: Path, segment_id: str, known: set[keeping.Key]) -> tuple[str | None, str | None]:
    """Return in words what a segment holds that no other does, or why it cannot be read."""
    try:
        count = repairing.held_alone(path, segment_id, known)
    except (StoreError, OSError, KeyError, TypeError, ValueError) as error:
        return None, str(error)
    return (f"it holds {counted(count, 'record')} that no other does" if count else None), None


def _partial(kinds: Collection[str], alone: str | None, has_manifest: bool) -> tuple[str, str]:
    """Return what a segment of which files are missing is, and what can be done."""
    there = " and ".join(kinds)
    if set(kinds) == {"facts"}:
        return "left", "only the facts of a segment are there, which are made of its other files: move it out"
    missing = ", ".join(kind for kind in manifest.RECORDED if kind not in kinds)
    only = (
        f"of the files of this segment only {there} {'is' if len(kinds) == 1 else 'are'} there, not {missing}"
    )
    # They are written in this order: chunks, exchanges, spans.
    if has_manifest and alone is None and "spans" not in kinds and "chunks" in kinds:
        return "left", f"{only}: a crash left it half written, and its log was sealed again; move it out"
    return "partial", f"{only}: if they were deleted, put them back; else move it out"
