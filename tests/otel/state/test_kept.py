"""State is kept as it is at one moment, and given back as it was."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tracefork_otel.errors import StoreError, TapeError, UsageError
from tracefork_otel.state.giving import give, take_away
from tracefork_otel.state.keeping import add, keep, look_of
from tracefork_otel.state.kept import Entry, Kept, entries_of, kept_of, objects_of, text_of, tree_of


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where state is kept."""
    return tmp_path / "store"


def given(store: Path, *paths: Path, **how: Any) -> list[Path]:
    """Copies of what is at the paths, kept and given back."""
    kept = kept_of(text_of(keep(paths, store, **how)))
    return give(kept, objects_of(store), Path(tempfile.mkdtemp(dir=store.parent), "copies"))


def listed(folder: Path) -> dict[str, bytes | str | None]:
    """What is below the folder: the content of files, the targets of links."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def test_a_folder_comes_back_as_it_was(tmp_path: Path, store: Path) -> None:
    """Its files, folders, modes, times and links inside of it; a link out of it is the file itself."""
    folder = tmp_path / "memory"
    (folder / "deep" / "empty").mkdir(parents=True)
    (folder / "a.md").write_bytes(b"\xff one")
    (folder / "deep" / "b.sh").write_text("two")
    (folder / "deep" / "b.sh").chmod(0o755)
    os.utime(folder / "a.md", ns=(1, 2_000_000_000))
    (tmp_path / "out.txt").write_text("out")
    (folder / "out").symlink_to("../out.txt")
    (folder / "deep" / "up").symlink_to(folder / "a.md")
    (folder / "self").symlink_to(folder)
    (copy,) = given(store, folder)
    assert listed(copy) == {
        **listed(folder),
        "out": b"out",
        os.path.join("deep", "up"): "../a.md",
        "self": ".",
    }
    assert (copy / "a.md").stat().st_mtime_ns == 2_000_000_000
    assert (copy / "deep" / "b.sh").stat().st_mode & 0o777 == 0o755
    take_away(copy.parent.parent)
    assert not copy.exists()
    assert (folder / "a.md").exists()


def test_what_cannot_be_kept_is_refused(tmp_path: Path, store: Path) -> None:
    """A socket, a pipe, a device, a link out to a folder, and what is too much: each named."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        with pytest.raises(UsageError, match="s is a socket: only files and folders"):
            keep([tmp_path / "s"], store)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe is a named pipe"):
        keep([tmp_path / "pipe"], store)
    with pytest.raises(UsageError, match="/dev/null is a device"):
        keep(["/dev/null"], store)
    with pytest.raises(UsageError, match="a path of state is empty"):
        keep([""], store)  # as a shell has it of a variable that is not set: not the folder one is in
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "out").symlink_to(tmp_path)
    with pytest.raises(UsageError, match=r"out is a link out of .*memory, and leads to no file"):
        keep([tmp_path / "memory"], store)
    (tmp_path / "big").write_bytes(bytes(100))
    (tmp_path / "more").write_bytes(bytes(100))
    with pytest.raises(
        UsageError, match=r"more has 100 bytes, and state is kept up to 150 bytes in all.*LIMIT"
    ):
        keep([tmp_path / "big", tmp_path / "more"], store, limit=150)
    with pytest.raises(UsageError, match="big cannot be kept as state: a rule says no"):
        keep([tmp_path / "big"], store, look=lambda content: "a rule says no")


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is denied to this user")
def test_what_may_not_be_read_is_refused(tmp_path: Path, store: Path) -> None:
    """The file is named."""
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "mine").write_text("x")
    (tmp_path / "memory" / "mine").chmod(0)
    with pytest.raises(UsageError, match=r"mine: its content cannot be kept as state: Permission denied"):
        keep([tmp_path / "memory"], store)


def test_paths_that_are_one_are_kept_once(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path inside another, the same by a link, relative and absolute."""
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "a.db").write_text("x")
    (tmp_path / "link").symlink_to("memory")
    monkeypatch.chdir(tmp_path)
    kept = keep(["memory/a.db", "link", "memory", tmp_path / "memory" / "a.db"], store)
    assert [(one.path, one.real) for one in kept] == [(str(tmp_path / "link"), str(tmp_path / "memory"))]
    (copy,) = give(kept, objects_of(store), tmp_path / "copies")
    assert (copy.name, listed(copy)) == ("link", {"a.db": b"x"})


def test_what_is_not_there_comes_back_as_nothing(tmp_path: Path, store: Path) -> None:
    """A file that is made during the run, and a link that leads nowhere."""
    (tmp_path / "dangling").symlink_to("nowhere")
    copies = given(store, tmp_path / "later.db", tmp_path / "dangling")
    assert [(copy.exists(), copy.parent.exists()) for copy in copies] == [(False, True)] * 2


def test_a_database_that_is_open_is_kept_whole(tmp_path: Path, store: Path) -> None:
    """With its write-ahead log; and without what a transaction that goes on has half written."""
    for mode in ("wal", "delete"):
        file = tmp_path / f"{mode}.db"
        open_ = sqlite3.connect(file, isolation_level=None)
        open_.execute(f"pragma journal_mode={mode}")
        open_.execute("create table t (x)")
        open_.execute("insert into t values ('kept')")
        open_.execute("pragma cache_size=1")
        open_.execute("begin")
        open_.executemany("insert into t values (?)", [("half" * 999,)] * 99)
        before = {path.name: path.read_bytes() for path in tmp_path.glob(f"{mode}.db*")}
        (copy,) = given(store, file)
        with sqlite3.connect(copy) as again:
            assert again.execute("select * from t").fetchall() == [("kept",)]
            assert again.execute("pragma integrity_check").fetchone() == ("ok",)
        assert {path.name: path.read_bytes() for path in tmp_path.glob(f"{mode}.db*")} == before
        open_.close()


def test_a_store_inside_is_left_out(tmp_path: Path) -> None:
    """A folder that holds the store itself is kept without it."""
    (tmp_path / "a.txt").write_text("x")
    (copy,) = given(tmp_path / ".tracefork", tmp_path)
    assert listed(copy) == {"a.txt": b"x"}


def test_equal_state_is_kept_once(tmp_path: Path, store: Path) -> None:
    """Two recordings of equal files have one copy of them, for the owner alone."""
    (tmp_path / "a").write_bytes(bytes(1000))
    first = keep([tmp_path / "a"], store)
    names = sorted(file.name for file in objects_of(store).iterdir())
    assert keep([tmp_path / "a"], store) == first
    assert sorted(file.name for file in objects_of(store).iterdir()) == names
    assert {file.stat().st_mode & 0o777 for file in objects_of(store).iterdir()} == {0o600}


def test_what_was_changed_or_lost_in_the_store_is_not_given(tmp_path: Path, store: Path) -> None:
    """The file of the store is named."""
    (tmp_path / "a").write_bytes(b"x" * 1000)
    kept = keep([tmp_path / "a"], store)
    (content,) = (file for file in objects_of(store).iterdir() if file.stat().st_size == 1000)
    content.write_bytes(b"y" * 1000)
    with pytest.raises(StoreError, match=f"{content.name}: this is not the state that was kept"):
        give(kept, objects_of(store), tmp_path / "copies")
    content.unlink()
    with pytest.raises(StoreError, match=f"not what was kept of it any more.*{content.name} is missing"):
        give(kept, objects_of(store), tmp_path / "copies-2")


@pytest.mark.parametrize(
    "entry",
    [
        Entry(path="../x", kind="file"),
        Entry(path="/etc/x", kind="file"),
        Entry(path="a/l", kind="link", target="/etc"),
        Entry(path="a/b/l", kind="link", target="../../../x"),
        Entry(path="a", kind="link", target=".."),
        Entry(path="", kind="folder"),
        Entry(path="a/\0", kind="file"),
        Entry(path="a/\ud800", kind="file"),
        Entry(path="a/l", kind="link", target="\0"),
        Entry(path="a/l", kind="link", target="\ud800"),
        Entry(path="a" + "/a" * 1000, kind="folder"),
    ],
)
def test_no_copy_leads_outside(entry: Entry) -> None:
    """State that somebody else wrote names nothing but what is in its copy."""
    with pytest.raises(TapeError, match="outside of its copy"):
        entries_of(json.dumps([asdict(entry)]).encode())


def test_nothing_is_written_through_a_link(tmp_path: Path, store: Path) -> None:
    """Not even where a file stands below a link of the same state."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_text("x")
    (one,) = keep([tmp_path / "a"], store)
    folder, file = entries_of((objects_of(store) / one.tree).read_bytes())
    link = replace(folder, path="a/l", kind="link", target=".")
    tree = tree_of([folder, link, replace(file, path="a/l/f")])
    crafted = replace(one, tree=add(objects_of(store), [tree]))
    with pytest.raises(StoreError, match="is no folder of the copy"):
        give([crafted], objects_of(store), tmp_path / "copies")


def test_modes_and_times_of_others(tmp_path: Path, store: Path) -> None:
    """No copy runs as its owner, and no time is beyond what a system knows."""
    (tmp_path / "a").write_text("x")
    (one,) = keep([tmp_path / "a"], store)
    (file,) = entries_of((objects_of(store) / one.tree).read_bytes())
    for number, wrong in enumerate((2**70, -(2**70))):
        tree = tree_of([replace(file, mode=0o4777 | wrong, mtime_ns=wrong)])
        crafted = replace(one, tree=add(objects_of(store), [tree]))
        (copy,) = give([crafted], objects_of(store), tmp_path / f"copies-{number}")
        assert copy.stat().st_mode & 0o7777 == 0o777


def test_modes_of_folders(tmp_path: Path, store: Path) -> None:
    """Also of one that its owner may not write in."""
    (tmp_path / "a" / "shared").mkdir(parents=True)
    (tmp_path / "a" / "shared" / "f").write_text("x")
    (tmp_path / "a" / "shared").chmod(0o555)
    (copy,) = given(store, tmp_path / "a")
    assert (copy / "shared").stat().st_mode & 0o777 == 0o755
    (tmp_path / "a" / "shared").chmod(0o755)


def test_names_that_are_no_utf8(tmp_path: Path, store: Path) -> None:
    """Of the path itself and of what is in it; what is written down of them can be encoded."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    Path(folder, os.fsdecode(b"\xfe")).write_text("x")
    assert (text_of(keep([folder], store)) or "").encode()
    (copy,) = given(store, folder)
    assert listed(copy) == listed(folder) != {}


def test_a_deep_tree_is_refused(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is as deep as it may be comes back."""
    for module in ("kept", "keeping"):
        monkeypatch.setattr(f"tracefork_otel.state.{module}.DEPTH", 20)
    (tmp_path / "a").joinpath(*["b"] * 19).mkdir(parents=True)
    (copy,) = given(store, tmp_path / "a")
    assert len(listed(copy)) == 19
    (tmp_path / "a").joinpath(*["b"] * 20).mkdir(parents=True)
    with pytest.raises(UsageError, match="is deeper than the 20 folders in each other that are kept"):
        keep([tmp_path / "a"], store)


def test_what_is_written_to_all_the_time(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up after a time, however long one copy of it takes."""
    (tmp_path / "a").write_text("x")
    os.utime(tmp_path / "a", (1, 1))
    clock, looked = iter(range(0, 1000, 6)), iter(range(1000))

    def changes(content: bytes) -> None:
        os.utime(tmp_path / "a", (at := next(looked), at))

    slow = SimpleNamespace(monotonic=lambda: next(clock), time_ns=time.time_ns, sleep=lambda _: None)
    monkeypatch.setattr("tracefork_otel.state.keeping.time", slow)
    with pytest.raises(UsageError, match=r"a is written to all the time.*end who writes it"):
        keep([tmp_path / "a"], store, look=changes)
    assert next(looked) == 2


def _crafted(path: str) -> str:
    return text_of([Kept(path=path, real="/x", kind="file", tree="", bytes=0)]) or ""


UP, NUL = _crafted("/x/.."), _crafted("/x\0")


@pytest.mark.parametrize(
    "text", ["{", "{}", "[1]", '[{"path": 1}]', '[{"path": "/a", "real": "/a"}]', UP, NUL]
)
def test_what_is_no_state_is_refused(text: str) -> None:
    """Whatever stands in a recording."""
    with pytest.raises(TapeError, match="cannot be read"):
        kept_of(text)


def test_a_database_that_this_process_has_open_keeps_its_locks(tmp_path: Path) -> None:
    """Another process cannot write while a transaction of this one goes on, whatever was kept meanwhile."""
    path = tmp_path / "work" / "a.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as mine:
        mine.execute("create table t (x)")
        mine.execute("begin immediate")
        keep((path.parent, path), tmp_path / "store")
        look_of((path.parent,), tmp_path / "store")
        write = f"import sqlite3; sqlite3.connect({str(path)!r}, timeout=0).execute('begin immediate')"
        other = subprocess.run([sys.executable, "-Sc", write], capture_output=True, text=True)
        assert "database is locked" in other.stderr
