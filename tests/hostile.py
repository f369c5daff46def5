"""Stores as somebody's repository might bring them: links, pipes, names that lead out, lies and nonsense."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from tracefork_backend.store import open_store
from wal_samples import write_conversation

from tracefork_otel.store import sealing

GOLDEN = Path(__file__).parent / "golden" / "fe621a2"
Spoil: TypeAlias = Callable[[Path, Path], None]
"""Makes something of a store, given a folder outside of it."""


@cache
def _made() -> Path:
    store = Path(tempfile.mkdtemp(prefix="tracefork-hostile-")) / "store"
    for number in range(2):
        write_conversation(store, 2, process_id=f"471{number}-0badcafe", seed=number)
        assert not sealing.seal_dead(store)
    shutil.copytree(GOLDEN / "sealed" / "blame", store / "blame")
    with open_store(store) as opened:
        assert len(opened.runs()) == 2
    write_conversation(store, 1, process_id="4712-0badcafe", seed=2)
    atexit.register(shutil.rmtree, store.parent, ignore_errors=True)
    return store


def store_at(path: Path) -> Path:
    """A store of two sealed runs, a log of a dead process and two journals of experiments."""
    return shutil.copytree(_made(), path)


def _file(store: Path, name: str) -> Path:
    """The path of what has that name, `KIND` of a segment being a file of the last one."""
    if name not in _KINDS:
        return store / name
    return sorted((store / "segments").glob(f"*.{name}.parquet"))[-1]


_KINDS = ("exchanges", "spans", "chunks", "facts")


def snapshot(folder: Path) -> dict[str, tuple[Any, ...]]:
    """What is in a folder: kinds, modes, times and contents."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            held: object = os.readlink(path)
        else:
            held = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_mtime_ns, held)
    return found


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def linked(name: str) -> Spoil:
    """What has that name lies outside, as it was, and a link leads there."""

    def spoil(store: Path, outside: Path) -> None:
        path = _file(store, name)
        target = outside / path.name
        if path.exists():
            shutil.move(path, target)
        elif "." in name:
            target.write_text("precious")
        else:
            target.mkdir()
            (target / "precious").write_text("precious")
        path.symlink_to(target)

    return spoil


def dangling(name: str) -> Spoil:
    """What has that name is a link to a file outside that does not exist."""

    def spoil(store: Path, outside: Path) -> None:
        path = _file(store, name)
        _remove(path)
        path.symlink_to(outside / "new")

    return spoil


def instead(name: str, what: str) -> Spoil:
    """In the place of a file something else."""

    def spoil(store: Path, outside: Path) -> None:
        path = _file(store, name)
        before = path.read_bytes() if path.is_file() else b""
        path.parent.mkdir(exist_ok=True)
        _remove(path)
        if what == "pipe":
            os.mkfifo(path)
        elif what == "folder":
            path.mkdir()
        elif what == "device":
            path.symlink_to("/dev/zero")
        elif what == "itself":
            path.symlink_to(path.name)
        elif what == "deep":
            path.write_bytes(b"[" * 100_000)
        else:
            path.write_bytes(
                {"empty": b"", "zeros": bytes(len(before)), "half": before[: len(before) // 2]}[what]
            )

    return spoil


def manifest(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """A manifest in which something is changed."""

    def spoil(store: Path, outside: Path) -> None:
        path = store / "MANIFEST.json"
        told = json.loads(path.read_bytes())
        change(told)
        path.write_text(json.dumps(told))

    return spoil


def column(kind: str, name: str, value: object) -> Spoil:
    """A segment in which a column has one value everywhere, with a digest that is right."""

    def spoil(store: Path, outside: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = store / "MANIFEST.json"
        told = json.loads(path.read_bytes())
        entry = told["segments"][-1]
        file = store / "segments" / f"{entry['id']}.{kind}.parquet"
        table = pq.read_table(file)
        at, of = table.column_names.index(name), pa.array([value] * len(table))
        if value is None or not isinstance(value, bytes):
            of = pa.array([value] * len(table), table.schema.field(at).type)
        pq.write_table(table.set_column(at, name, of), file)
        entry.setdefault("sha256", {})[kind] = hashlib.sha256(file.read_bytes()).hexdigest()
        path.write_text(json.dumps(told))

    return spoil


def log(data: bytes) -> Spoil:
    """A log of a dead process with these bytes."""

    def spoil(store: Path, outside: Path) -> None:
        (store / "wal" / "4713-0badcafe-0.wal").write_bytes(data)

    return spoil


def journal(line: bytes) -> Spoil:
    """The newest journal of an experiment begins with this line."""

    def spoil(store: Path, outside: Path) -> None:
        path = sorted((store / "blame").glob("*.jsonl"))[0]
        lines = path.read_bytes().split(b"\n")
        path.write_bytes(b"\n".join([line, *lines[1:]]))

    return spoil


def _entry(**fields: object) -> Callable[[dict[str, Any]], object]:
    return lambda told: told["segments"][-1].update(fields)


def _retired(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda told: told.update(retired=[{"id": name, "at_ns": 1}])


NAMES = (
    *("MANIFEST.json", "views.sql", ".lock", "wal", "segments", "kept", "blame", ".MANIFEST.json.tmp"),
    *("wal/4712-0badcafe-0.wal", "blame/00f00ce68b1771d6.journal.jsonl", ".fork-dead", ".compact.lock"),
    *_KINDS,
)
FILES = ("MANIFEST.json", "views.sql", *NAMES[8:10], *NAMES[12:])
HOSTILE: dict[str, Spoil] = {
    **{f"link to {name}": linked(name) for name in NAMES},
    **{f"link to nothing, {name}": dangling(name) for name in NAMES},
    **{
        f"{what}, {name}": instead(name, what)
        for name in FILES
        for what in ("pipe", "folder", "device", "itself", "empty", "zeros", "half", "deep")
    },
    "pipe as lock": instead(".lock", "pipe"),
    "pipe as a fork's owner": instead(".fork-dead/owner", "pipe"),
    "folder as a fork's owner": instead(".fork-dead/owner", "folder"),
    "folder as lock": instead(".lock", "folder"),
    "device as lock": instead(".lock", "device"),
    "id leads out": manifest(_entry(id="../../../outside/data")),
    "id is absolute": manifest(_entry(id="/etc/passwd")),
    "id is nested": manifest(_entry(id={"a": 1})),
    "retired leads out": manifest(
        lambda told: told.update(retired=[{"id": "../../outside/data", "at_ns": 1}])
    ),
    "log leads out": manifest(_entry(wals=["../../outside/x.wal"])),
    "every log is sealed": manifest(_entry(wals=["4712-0badcafe-0.wal"])),
    "a newer manifest": manifest(lambda told: told.update(format=99)),
    "a newer segment": manifest(_entry(format=99)),
    "counts are huge": manifest(
        lambda told: told["segments"][-1].update(bytes=2**63 - 1, exchanges=2**63 - 1)
    ),
    "digests lie": manifest(_entry(sha256=dict.fromkeys(_KINDS, "0" * 64))),
    "digests are none": manifest(lambda told: [one.update(sha256={}) for one in told["segments"]]),
    "a segment twice": manifest(lambda told: told["segments"].append(told["segments"][-1])),
    "version is huge": manifest(lambda told: told.update(version=2**63 - 1)),
    "times are odd": manifest(
        lambda told: told["segments"][-1].update(started_ns=-(2**63), ended_ns=2**63 - 1)
    ),
    "attributes are no JSON": column("spans", "attributes", "{"),
    "attributes are a list": column("spans", "attributes", "[1]"),
    "attributes are deep": column("spans", "attributes", "[" * 50_000),
    "spans of a kind": column("spans", "kind", "process"),
    "notes": column("spans", "kind", "note"),
    "notes of odd": column("spans", "name", "odd"),
    "no trace": column("spans", "trace_id", None),
    "times before 1970": column("spans", "started_ns", -(2**63)),
    "times after 2262": column("exchanges", "started_ns", 2**63 - 1),
    "ends before its start": column("exchanges", "ended_ns", -(2**63)),
    "headers are no JSON": column("exchanges", "request_headers", "["),
    "headers are odd": column("exchanges", "response_headers", '[["a"], 1]'),
    "parts are odd": column("exchanges", "request_parts", [5, 1, -3]),
    "parts are huge": column("exchanges", "request_parts", [0, 2**31 - 1]),
    "lengths are huge": column("exchanges", "request_length", 2**63 - 1),
    "sizes are huge": column("exchanges", "chunk_sizes", [2**31 - 1] * 3),
    "outcome is odd": column("exchanges", "outcome", "\x1b]0;x\x07"),
    "urls are odd": column("exchanges", "url", "http://[::1"),
    "numbers as text": column("spans", "started_ns", b"x"),
    "chunks have no number": column("chunks", "no", None),
    "a log of a newer format": log(b"tracefork wal 9\n"),
    "a log that claims 4 GB": log(b"tracefork wal 1\n" + b"\xff\xff\xff\xff" * 4),
    "a log of zeros": log(bytes(100_000)),
    "a log of nothing but its line": log(b"tracefork wal 1\n"),
    "a newer journal": journal(b'{"format": "tracefork blame journal 99"}'),
    "a deep journal": journal(b"[" * 100_000),
    "a journal of something": journal(b'{"format": "tracefork blame journal 2", "settings": []}'),
}
"""What a store may be, by name."""
