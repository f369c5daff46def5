"""A commit is seen whole or not at all, by any number of processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tracefork_otel.errors import StoreError
from tracefork_otel.store import manifest, segment
from tracefork_otel.store.manifest import FactsFile, Manifest, SegmentEntry


def entry(segment_id: str, **fields: object) -> SegmentEntry:
    """An entry of that id."""
    known = {"exchanges": 1, "spans": 2, "bytes": 3, "started_ns": 4, "ended_ns": 5}
    return SegmentEntry(id=segment_id, **{**known, **fields})  # type: ignore[arg-type]


def fresh(number: int) -> str:
    """An id of a segment made just now."""
    return f"{time.time_ns() // 1_000_000:013d}-{number:06x}"


def test_a_store_without_a_manifest_is_empty(tmp_path: Path) -> None:
    """Loading from a directory without a manifest, or from none, gives an empty one."""
    assert manifest.load(tmp_path) == Manifest()
    assert manifest.load(tmp_path / "absent") == Manifest()


def test_what_was_committed_is_loaded(tmp_path: Path) -> None:
    """Every field of an entry comes back, and the file is plain JSON of format 1."""
    first = entry("a", wals=("1-a-0.wal",), traces=("0af765191234", "1"))
    assert manifest.commit(tmp_path, add=[first]).segments == (first,)
    second = manifest.commit(tmp_path, add=[entry("b")], facts={"a": FactsFile(3, "f" * 64)})
    assert manifest.load(tmp_path) == second
    a, b = second.segments
    assert (second.version, a.facts, b.facts) == (2, 3, None)
    assert second.wals == {"1-a-0.wal"}
    assert json.loads((tmp_path / "MANIFEST.json").read_bytes())["format"] == 1
    assert a.may_hold("0af765191234567")
    assert not a.may_hold("f" * 32)
    assert b.may_hold("f" * 32)


def test_a_segment_that_is_gone_cannot_be_replaced(tmp_path: Path) -> None:
    """Of two compactions of the same segments, the second fails and changes nothing."""
    manifest.commit(tmp_path, add=[entry("a"), entry("b")])
    merged = manifest.commit(tmp_path, add=[entry("c")], remove=["a", "b"])
    with pytest.raises(StoreError, match="a, b were replaced"):
        manifest.commit(tmp_path, add=[entry("d")], remove=["a", "b"])
    with pytest.raises(StoreError, match="replaced"):
        manifest.commit(tmp_path, facts={"a": FactsFile(1, "")})
    assert manifest.load(tmp_path) == merged


def test_a_replaced_segment_keeps_its_files_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are there for readers of an older manifest until the grace is over, and then go."""
    (tmp_path / "segments").mkdir()
    old = entry("a")
    files = [old.file(tmp_path, kind) for kind in manifest.KINDS]
    for file in files:
        file.write_bytes(b"x")
    manifest.commit(tmp_path, add=[old])
    manifest.commit(tmp_path, add=[entry("b")], remove=["a"])
    assert [item.id for item in manifest.commit(tmp_path).retired] == ["a"]
    assert all(file.exists() for file in files)
    monkeypatch.setattr(manifest, "GRACE_NS", 0)
    assert manifest.commit(tmp_path).retired == ()
    assert not any(file.exists() for file in files)


def test_names_of_wals_outlive_a_merge(tmp_path: Path) -> None:
    """A WAL that is still there, or whose segment is young, is known to be sealed after a merge."""
    (tmp_path / "wal").mkdir()
    (tmp_path / "wal" / "1-a-0.wal").touch()
    young = fresh(1)
    manifest.commit(
        tmp_path, add=[entry("0-a", wals=("1-a-0.wal", "1-a-1.wal")), entry(young, wals=("2-b-0.wal",))]
    )
    merged = manifest.commit(tmp_path, add=[entry("c")], remove=["0-a", young])
    assert merged.wals == {"1-a-0.wal", "2-b-0.wal"}
    manifest.commit(tmp_path, remove=["c"])
    assert not (tmp_path / "wal" / "1-a-0.wal").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format":1}', b"\xff"])
def test_a_broken_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    """What is no manifest raises an error that names the file, and a commit leaves it alone."""
    path = tmp_path / "MANIFEST.json"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"MANIFEST\.json"):
        manifest.load(tmp_path)
    with pytest.raises(StoreError, match=r"MANIFEST\.json"):
        manifest.commit(tmp_path, add=[entry("a")])
    assert path.read_bytes() == content


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A store of a later version is not misread: the message says to upgrade."""
    (tmp_path / "MANIFEST.json").write_text('{"format":2}')
    with pytest.raises(StoreError, match="upgrade"):
        manifest.load(tmp_path)


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """A commit that cannot write raises StoreError and leaves the manifest that was there."""
    before = manifest.commit(tmp_path, add=[entry("a")])
    (tmp_path / "views.sql").unlink()
    (tmp_path / "views.sql").mkdir()
    with pytest.raises(StoreError, match=r"MANIFEST\.json"):
        manifest.commit(tmp_path, add=[entry("b")])
    assert manifest.load(tmp_path) == before


def hostile(**fields: object) -> bytes:
    """A manifest of one segment whose entry says this besides."""
    known = {"id": "a", "exchanges": 1, "spans": 2, "bytes": 3, "started_ns": 4, "ended_ns": 5}
    return json.dumps({"format": 1, "version": 1, "segments": [{**known, **fields}], "retired": []}).encode()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (hostile(id="../../data/report"), "is not the id of a segment"),
        (hostile(id="a/b"), "is not the id of a segment"),
        (hostile(id="a\0"), "is not the id of a segment"),
        (hostile(id="\ud800"), "is not the id of a segment"),
        (hostile(id=["a"]), "a list is not the id of a segment"),
        (hostile(wals=["../1-a-0.wal"]), "is not the name of a log"),
        (hostile(wals="1-a-0.wal"), "is not a list"),
        (hostile(spans=[]), "spans: a list is not a whole number"),
        (hostile(exchanges=2**63), "is not a whole number"),
        (hostile(exchanges=True), "is not a whole number"),
        (hostile(bytes=1.5), "is not a whole number"),
        (hostile(facts="1"), "is not a whole number"),
        (hostile(sha256={"spans": 1}), "is not a text"),
        (hostile(traces={"a": 1}), "is not a list"),
        (b'{"format":1,"version":1,"segments":[],"retired":[{"id":"../x","at_ns":1}]}', "is not the id"),
        (b'{"format":1,"version":1,"segments":{},"retired":[]}', "segments: an object is not a list"),
        (b'{"format":"1","version":1,"segments":[],"retired":[]}', "format: '1' is not a whole number"),
        (b'{"format":1,"version":NaN,"segments":[],"retired":[]}', "version: nan is not a whole number"),
        (b"[" * 10**5, "not a manifest"),
        (b"9" * 10**5, "not a manifest"),
    ],
)
def test_no_value_leads_out_of_the_store(tmp_path: Path, content: bytes, why: str) -> None:
    """Ids and names become paths: each is of a fixed form, and what has another type is refused by name."""
    (tmp_path / "MANIFEST.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"MANIFEST\.json") as raised:
        manifest.load(tmp_path)
    assert why in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("name", [".lock", "MANIFEST.json", "views.sql"])
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    """Version control keeps links: one that is found in the place of a file leaves its target as it was."""
    store, target = tmp_path / "store", tmp_path / "target"
    manifest.commit(store, add=[entry("a")])
    kept = (store / name).read_bytes()
    target.write_bytes(kept)
    (store / name).unlink()
    (store / name).symlink_to(target)
    if name == ".lock":
        with pytest.raises(StoreError):
            manifest.commit(store, add=[entry("b")])
    else:
        manifest.commit(store, add=[entry("b")])
    assert target.read_bytes() == kept


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: path.symlink_to("elsewhere"), "a link"),
        (lambda path: path.mkdir(), "a folder"),
        (os.mkfifo, "no regular file"),
    ],
)
def test_a_lock_that_is_no_file_is_named(tmp_path: Path, make: Callable[[Path], None], what: str) -> None:
    """What stands in the place of the lock is said, and what to do; it is not taken for the manifest."""
    make(tmp_path / ".lock")
    with pytest.raises(StoreError, match=rf"\.lock: this must be a file, and is {what}.*delete it"):
        manifest.commit(tmp_path, add=[entry("a")])
    assert not (tmp_path / "MANIFEST.json").exists()
    assert not (tmp_path / "elsewhere").exists()


def test_a_pipe_in_the_place_of_a_manifest_holds_nobody_up(tmp_path: Path) -> None:
    """Reading it would wait for a writer that never comes."""
    os.mkfifo(tmp_path / "MANIFEST.json")
    with pytest.raises(StoreError, match="cannot be read"):
        manifest.load(tmp_path)


COMMITTER = """
import sys
from pathlib import Path
from tracefork_otel.store import manifest
store, name = Path(sys.argv[1]), sys.argv[2]
for number in range(12):
    new = manifest.SegmentEntry(id=f"{name}{number}", exchanges=1, spans=0, bytes=0, started_ns=0, ended_ns=0)
    old = [f"{name}{number - 2}"] if number % 3 == 2 else []
    manifest.commit(store, add=[new], remove=old)
"""


@pytest.mark.slow
def test_processes_and_threads_commit_at_once(tmp_path: Path) -> None:
    """No commit of three processes and two threads is lost, and a reader never sees half of one."""
    children = [
        subprocess.Popen([sys.executable, "-c", COMMITTER, str(tmp_path), name]) for name in ("p", "q", "r")
    ]

    def work(name: str) -> None:
        for number in range(12):
            manifest.commit(tmp_path, add=[entry(f"{name}{number}")])

    threads = [threading.Thread(target=work, args=(name,)) for name in ("s", "t")]
    for thread in threads:
        thread.start()
    seen = 0
    while any(child.poll() is None for child in children):
        version = manifest.load(tmp_path).version
        assert version >= seen
        seen = version
    for thread in threads:
        thread.join()
    assert [child.wait() for child in children] == [0, 0, 0]
    final = manifest.load(tmp_path)
    assert final.version == 60
    assert len(final.segments) == len({item.id for item in final.segments}) == 60 - 12
    assert len(final.retired) == 12


# Later Pythons warn of forking with threads, which is the very case.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_in_the_middle_of_a_commit_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A fork while another thread commits leaves the lock to the parent; nobody waits for the child."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            manifest.commit(tmp_path)

    thread = threading.Thread(target=work)
    thread.start()
    children: list[int] = []
    try:
        for _ in range(10):
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(writing)
                os.read(reading, 1)  # Until the parent closes its end.
                os._exit(0)
            os.close(reading)
            children.append(writing)
    finally:
        stop.set()
        thread.join()
    manifest.commit(tmp_path, add=[entry("after")])
    assert manifest.load(tmp_path).segments[-1].id == "after"
    for writing in children:
        os.close(writing)
    for _ in children:
        os.wait()


def test_the_views_know_where_the_store_is(tmp_path: Path) -> None:
    """A commit puts views.sql beside the manifest with the store's absolute path, and mends an older one."""
    store = tmp_path / "it's here"
    manifest.commit(store)
    views = store / "views.sql"
    text = views.read_text()
    assert text.startswith(f"SET VARIABLE tracefork_store='{tmp_path}/it''s here';\n")
    views.write_text("older")
    manifest.commit(store)
    assert views.read_text() == text


def test_a_folder_in_the_place_of_a_file_stops_no_commit(tmp_path: Path) -> None:
    """What stands where a file of a replaced segment was is left, and the next segments are named."""
    manifest.commit(tmp_path, add=[entry("a")])
    (tmp_path / "segments" / "a.spans.parquet" / "x").mkdir(parents=True)
    manifest.commit(tmp_path, remove=["a"], at_once=True)
    found = manifest.commit(tmp_path, add=[entry("b")])
    assert ([one.id for one in found.segments], found.retired) == (["b"], ())
    assert (tmp_path / "segments" / "a.spans.parquet" / "x").is_dir()


@pytest.mark.parametrize("now", [-(10**18), -1, 0, 10**19])
def test_any_clock_gives_an_id_that_a_manifest_takes(monkeypatch: pytest.MonkeyPatch, now: int) -> None:
    """A clock before 1970, or far ahead, makes no segment that the next reader refuses."""
    monkeypatch.setattr("time.time_ns", lambda: now)
    assert segment.new_id()[0].isdigit()
