"""What reads the store's files, and the files that pass between the backend and an agent."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import tape_forged
import wal_forged
import wal_samples
from tracefork_backend.agents import reach
from tracefork_backend.blaming import changes, journal
from tracefork_backend.network.agents import VARIABLE, recorded_routes
from tracefork_backend.store import facts, snapshot

from tracefork_otel.errors import TraceforkError
from tracefork_otel.play.claims import Claims
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.play.memory import memory_beside
from tracefork_otel.redaction import reading
from tracefork_otel.settings import Settings
from tracefork_otel.store import codec, manifest, sealing, segment
from tracefork_otel.store.columns import TABLES
from tracefork_otel.store.rows import Rows, Storing
from tracefork_otel.tape.start import HowStarted, how_started
from tracefork_otel.tape.tape import Tape
from tracefork_otel.wire import cuts

from .mutating import Input
from .running import Target, in_files

GOLDEN = Path(__file__).parents[1] / "golden" / "fe621a2"
NAME = "4711-0badcafe-0.wal"


def files(pattern: str, *, most: int = 100_000) -> list[Input]:
    """The golden files of that name."""
    return [(path.read_bytes(),) for path in sorted(GOLDEN.glob(pattern)) if path.stat().st_size <= most]


def wals() -> list[Input]:
    """Logs: of earlier versions, and a small one of ours."""
    frames = [wal_forged.frame(*wal_forged.header_of(record)) for record in wal_forged.RECORDS]
    return [*files("killed/wal/*.wal"), (codec.MAGIC + b"".join(frames),)]


def read_log(path: Path) -> None:
    """A log read, joined, and laid out as the columns of a segment."""
    rows = Rows()
    storing = Storing(rows)
    storing.read(path)
    storing.settle()
    segment.tables_of(rows)


def records() -> list[Input]:
    """Headers of each kind of record, and their bodies."""
    growing = [*wal_samples.bodies(2, turn=60, tools=0)]
    made = [*wal_forged.RECORDS]
    for number, (request, response) in enumerate(growing):
        made += wal_samples.exchange_records(number, request, response)
    told = [wal_forged.header_of(record) for record in made]
    return [(json.dumps(header).encode(), bodies) for header, bodies in told]


_log = in_files(read_log, NAME)


def read_record(header: bytes, bodies: bytes) -> None:
    """A record with a right checksum between others."""
    first = wal_forged.frame(*wal_forged.header_of(wal_samples.process()))
    _log(codec.MAGIC + first + wal_forged.frame(header, bodies) + b"".join(wal_forged.whole()))


@cache
def sealed() -> Path:
    """A store of one small segment with facts."""
    store = Path(tempfile.mkdtemp(prefix="tracefork-fuzz-"))
    path = store / "wal" / NAME
    path.parent.mkdir()
    frames = [wal_forged.frame(*wal_forged.header_of(record)) for record in wal_forged.RECORDS]
    path.write_bytes(codec.MAGIC + b"".join(frames))
    assert not sealing.seal_dead(store)
    assert not facts.ensure(store)
    return store


def segments() -> list[Input]:
    """The files of the segment, in order."""
    store = sealed()
    (entry,) = manifest.load(store).segments
    return [tuple(entry.file(store, kind).read_bytes() for kind in manifest.KINDS)]


def read_segment(*parts: bytes) -> None:
    """A segment's files, with no digest that says that they were changed."""
    store = sealed()
    (entry,) = manifest.load(store).segments
    changed = store.with_name(store.name + "-changed")
    (changed / "segments").mkdir(parents=True, exist_ok=True)
    for kind, data in zip(manifest.KINDS, parts, strict=True):
        entry.file(changed, kind).write_bytes(data)
    read_changed(changed, entry)


def read_changed(store: Path, entry: manifest.SegmentEntry) -> None:
    """All readers of a segment's files, each of which may refuse them."""
    entry = replace(entry, sha256={})
    snapshot.why_spoiled(store, entry)
    for read in (
        lambda: [*segment.read_exchanges(store, entry)],
        lambda: [*segment.read_exchanges(store, entry, trace_ids=["a" * 32])],
        lambda: segment.read_records(store, entry),
        lambda: facts.compute(store, entry),
    ):
        with contextlib.suppress(TraceforkError):
            read()


def schemas() -> list[Input]:
    """Each column of a segment's files left out, renamed, and of other types."""
    return [
        (kind.encode(), column.name.encode(), change.encode())
        for kind in manifest.KINDS
        for column in TABLES[kind]
        for change in ("none", "renamed", "string", "int64", "binary", "list<int64>", "null", "empty")
    ]


def read_schema(kind: bytes, name: bytes, change: bytes) -> None:
    """A segment in which one column of one file is not what it should be."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    store = sealed()
    (entry,) = manifest.load(store).segments
    changed = store.with_name(store.name + "-changed")
    (changed / "segments").mkdir(parents=True, exist_ok=True)
    for one in manifest.KINDS:
        shutil.copy(entry.file(store, one), entry.file(changed, one))
    of, column, how = (part.decode("utf-8", "replace") for part in (kind, name, change))
    if of not in manifest.KINDS or column not in (table := pq.read_table(entry.file(store, of))).column_names:
        return
    at, rows = table.column_names.index(column), len(table)
    types = {
        "string": pa.string(),
        "int64": pa.int64(),
        "binary": pa.binary(),
        "list<int64>": pa.list_(pa.int64()),
    }
    values = {"string": ["x"], "int64": [-1], "binary": [b"\xff"], "list<int64>": [[2**40, -1]]}
    if how in types:
        table = table.set_column(at, column, pa.array(values[how] * rows, types[how]))
    elif how == "null":
        table = table.set_column(at, column, pa.nulls(rows, table.schema.field(at).type))
    elif how == "empty":
        table = table.slice(0, 0)
    else:
        table = table.remove_column(at) if how == "none" else table.rename_columns({column: column + "_"})
    pq.write_table(table, entry.file(changed, of))
    read_changed(changed, entry)


def read_journal(path: Path) -> None:
    """An experiment's journal, and what is asked of its header."""
    header, trials, _ = journal.read(path)
    journal.limits_of(header)
    if "oracle" in header["settings"]:
        journal.settings_of(header, path)
    for trial in trials:
        assert trial.seen[2] in (True, False)


def settings_of(text: bytes) -> None:
    """Settings out of an environment that is given as JSON."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(told, dict):
        Settings.from_env({str(name): str(value) for name, value in told.items()})


def start_of(text: bytes) -> None:
    """How a run was started, out of a span's attributes that are given as JSON."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(told, dict):
        start = how_started(told)
        json.dumps(start.attributes())
        recorded_routes(start)


def starts() -> list[Input]:
    """Attributes of roots."""
    route = {"variable": "OPENAI_BASE_URL", "origin": "https://x", "path": "/v1", "port": 1}
    start = HowStarted(
        command=("python", "a.py"),
        cwd="/x",
        environment={"A": "b", VARIABLE: json.dumps([route])},
        withheld=("K",),
        entrypoint="a:b",
        arguments={"args": [1], "kwargs": {}},
        versions={"python": "3.11"},
        exit_status=0,
    )
    told = start.attributes()
    plain = {
        name: json.loads(str(value)) if str(value)[:2] in ('["', '{"') else value
        for name, value in told.items()
    }
    return [(json.dumps(told).encode(),), (json.dumps(plain).encode(),)]


def rules(path: Path) -> None:
    """Redaction rules as TOML, applied to a text."""
    reading.load(path)


def rules_json(text: bytes) -> None:
    """Redaction rules as JSON."""
    reading.from_json(text.decode("utf-8", "surrogateescape"))


def intervention(data: bytes) -> None:
    """What a fork changes, read and written."""
    found = Intervention.from_json(data)
    assert Intervention.from_json(found.to_json()) == found


def memory(path: Path) -> None:
    """What a fork remembers."""
    memory_beside(path.with_name(path.name.removesuffix(".memory")), Claims())


def absent(path: Path) -> None:
    """A note of a process that could not record."""
    store = path.parent.parent
    found = reach.reached(store, "a" * 32)
    reach.why_nothing(["x"], *found)


def repaired(path: Path) -> None:
    """Answers to try in a repair."""
    changes.repair(path)


def tapes() -> list[Input]:
    """The golden tapes that are small."""
    return files("tapes/*", most=30_000)


_tape = in_files(Tape.load, "a.tape.jsonl")


def read_tape(data: bytes) -> None:
    """A tape whose sums are right, as far as there is something to sum up; and what asks of it."""
    tape = _tape(tape_forged.summed(data))
    assert isinstance(tape, Tape)
    tape.to_bytes()


def piece(line: bytes) -> None:
    """A line of a tape that is a piece of a body."""
    try:
        cuts.decode_piece(line)
    except (ValueError, RecursionError):
        return  # as `tape/file.py` takes it


def clean() -> None:
    """Remove the store that was made."""
    if sealed.cache_info().currsize:
        for path in (sealed(), sealed().with_name(sealed().name + "-changed")):
            shutil.rmtree(path, ignore_errors=True)


TARGETS = (
    Target(name="wal", corpus=wals, read=_log, dear=20),
    Target(name="record", corpus=records, read=read_record, dear=5),
    Target(
        name="manifest",
        corpus=lambda: files("sealed/MANIFEST.json"),
        read=in_files(lambda path: manifest.load(path.parent), manifest.FILE),
    ),
    Target(name="segment", corpus=segments, read=read_segment, dear=100),
    Target(name="schema", corpus=schemas, read=read_schema, dear=1000),
    Target(name="tape", corpus=tapes, read=_tape, dear=5),
    Target(name="tape-summed", corpus=tapes, read=read_tape, dear=10),
    Target(
        name="piece",
        corpus=lambda: [(line,) for (data,) in files("tapes/*") for line in data.splitlines()[1:9]],
        read=piece,
    ),
    Target(name="intervention", corpus=lambda: files("interventions/*"), read=intervention),
    Target(
        name="memory",
        corpus=lambda: [(b'["ab12", "/tmp/a.tape.jsonl", 3]\n["cd", "b", 0]\n',)],
        read=in_files(memory, "a.json.memory"),
    ),
    Target(
        name="journal", corpus=lambda: files("sealed/blame/*"), read=in_files(read_journal, "x.journal.jsonl")
    ),
    Target(
        name="settings",
        corpus=lambda: [(json.dumps(_environment()).encode(),)],
        read=settings_of,
    ),
    Target(name="start", corpus=starts, read=start_of),
    Target(name="rules", corpus=lambda: [(_TOML,)], read=in_files(rules, "rules.toml"), dear=20),
    Target(
        name="rules-json",
        corpus=lambda: [(b'{"rule": [{"json": "a.b", "in": "request"}, {"pattern": "x+y"}], "salt": "s"}',)],
        read=rules_json,
        dear=20,
    ),
    Target(
        name="absent",
        corpus=lambda: [
            (json.dumps({"launch_id": "a" * 32, "why": "x", "executable": "/x", "pid": 3}).encode(),)
        ],
        read=in_files(absent, "wal/4.absent.json"),
    ),
    Target(
        name="repair",
        corpus=lambda: [(b'{"3": "the better answer", "4": {"tool_input": {"a": 1}, "tool": "w"}}',)],
        read=in_files(repaired, "repair.json"),
    ),
)

_TOML = b"""salt = "s"

[[rule]]
name = "mails"
pattern = '(?<![\\w.+-])[\\w.+-]{1,64}@[\\w-]+'
digest = true

[[rule]]
header = "x-tenant"
replace = "TENANT"

[[rule]]
json = "**.email"
in = "request"
"""


def _environment() -> dict[str, str]:
    return {
        "TRACEFORK_MODE": "record",
        "TRACEFORK_STORE": "s",
        "TRACEFORK_EVENT_BODY_LIMIT": "unlimited",
        "TRACEFORK_ROTATE_BYTES": "123",
        "TRACEFORK_SEAL": "1",
        "TRACEFORK_IGNORE": "a.b,c[*]",
        "TRACEFORK_TIMING": "none",
        "TRACEFORK_TOOLS": "live",
        "TRACEFORK_MATCH": "json",
        "TRACEFORK_REDACT_HEADERS": "a, b",
    }
