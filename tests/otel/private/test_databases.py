"""A database of SQLite that is not kept is worked on in a copy of what it is now."""

from __future__ import annotations

import glob
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tracefork_otel.private.start import use_copies
from tracefork_otel.settings import Settings
from tracefork_otel.state.giving import give, write_places
from tracefork_otel.undo import Undo


class World:
    """A user's folder with a database in use, another folder that is kept, and a replay."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.private = folder / "user", folder / "private"
        (self.folder / "kept").mkdir(parents=True)
        self.used = self._database(self.folder / "a.db")
        self._database(self.folder / "kept" / "k.db").close()
        os.symlink("a.db", self.folder / "link.db")
        os.symlink(self.folder, folder / "way")
        self._database(self.folder / "b.db").close()
        os.link(self.folder / "b.db", self.folder / "hard.db")
        give((), folder, self.private)
        (folder / "copy").mkdir()
        self._database(folder / "copy" / "k.db", "copied").close()
        write_places(self.private, [(str(self.folder / "kept"), folder / "copy")])
        self.before = self.content()
        self.notes: list[tuple[str, str]] = []
        self.why = ""
        self.undo = Undo()

    @staticmethod
    def _database(path: Path, row: str = "mine") -> sqlite3.Connection:
        made = sqlite3.connect(path, isolation_level=None)
        made.execute("pragma journal_mode=wal")
        made.execute("create table t (x)")
        made.execute("insert into t values (?)", [row])
        return made

    def content(self) -> dict[str, bytes]:
        """The user's files; without the index that who reads makes anew."""
        files = [path for path in self.folder.rglob("*") if path.is_file() and not path.name.endswith("-shm")]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in files}

    def start(self, **settings: Any) -> None:
        """Have the test's own code be that of the replay's next process."""
        self.undo.take_back()
        session: Any = SimpleNamespace(
            process_id="1",
            note=self._note,
            settings=Settings(private=self.private, store=self.private.parent / "store", **settings),
        )
        use_copies(session, self.undo)

    def _note(self, kind: str, attributes: Any) -> None:
        self.notes.append((kind, os.path.relpath(attributes["path"], self.folder)))
        self.why = attributes.get("why", self.why)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The first process of the replay is started in the user's folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    made = World(tmp_path)
    monkeypatch.chdir(made.folder)
    made.start()
    yield made
    made.undo.take_back()
    made.used.close()


def rows(database: Any, **how: Any) -> list[str]:
    """What the table of the database holds, once one row more is there."""
    with closing(sqlite3.connect(database, isolation_level=None, **how)) as opened:
        if "mode=ro" not in os.fsdecode(database):
            opened.execute("insert into t values ('more')")
        return [row[0] for row in opened.execute("select x from t")]


@pytest.mark.parametrize("first", ["a.db", b"a.db", "./kept/../a.db", "link.db", "../way/a.db"])
def test_by_whatever_name_it_is_one_copy(world: World, first: Any) -> None:
    """What stands in its log is there too; the next process finds what the one before has written."""
    assert rows(first) == ["mine", "more"]
    assert rows(Path("link.db")) == ["mine", "more", "more"]
    world.start()
    assert os.stat("a.db").st_size > 0
    assert rows(f"file:{world.folder}/a.db?mode=ro", uri=True) == ["mine", "more", "more"]
    assert rows("file:a.db?mode=rwc", uri=True) == ["mine", "more", "more", "more"]
    world.undo.take_back()
    assert world.content() == world.before
    (note,) = world.notes
    assert note == ("database", os.path.normpath(os.fsdecode(first)))


def test_one_that_is_removed_to_begin_anew(world: World) -> None:
    """It is removed in the copy; other files, and links, are removed as ever."""
    Path("plain.txt").write_text("x")
    os.symlink("b.db", "b-link.db")
    for name in (*sorted(glob.glob("a.db*")), "plain.txt", "b-link.db"):
        os.remove(name)
    assert not os.path.exists("a.db")
    assert not os.path.lexists("b-link.db")
    with pytest.raises(FileNotFoundError, match=r"'a\.db'|/user/a\.db'"):
        Path("a.db").unlink()
    sqlite3.connect("a.db").execute("create table t (x)").connection.close()
    assert rows("a.db") == ["more"]
    world.undo.take_back()
    assert world.content() == world.before
    assert [path for kind, path in world.notes if kind == "database"] == ["a.db"]


def test_two_names_of_one_file(world: World) -> None:
    """They are two names of one copy."""
    assert rows("hard.db") == ["mine", "more"]
    assert rows("b.db") == ["mine", "more", "more"]
    world.undo.take_back()
    assert world.content() == world.before
    assert world.notes == [("database", "hard.db")]


@pytest.mark.slow
def test_the_locks_of_this_process_stay(world: World) -> None:
    """Who has the database open already, here, still has it alone while it changes it."""
    world.undo.take_back()
    with closing(sqlite3.connect("b.db", isolation_level=None)) as mine:
        mine.execute("pragma journal_mode=delete")
        mine.execute("begin immediate")
        world.start()
        assert rows("b.db") == ["mine", "more"]
        write = "import sqlite3; sqlite3.connect('b.db', timeout=0).execute('begin immediate')"
        other = subprocess.run([sys.executable, "-Sc", write], capture_output=True, text=True)
        assert "database is locked" in other.stderr


@pytest.mark.slow
def test_one_that_another_process_opened_meanwhile(world: World) -> None:
    """A process that was there before finds it, also to read."""
    earlier, world.undo = world.undo, Undo()
    world.start()
    rows("a.db")
    world.undo.take_back()
    world.undo = earlier
    world.start()
    assert rows("file:link.db?mode=ro", uri=True) == ["mine", "more"]


def test_one_that_is_not_there(world: World, tmp_path: Path) -> None:
    """It is made beside; where there is no folder for it, it is not made either."""
    with closing(sqlite3.connect("new.db")) as made:
        made.execute("create table t (x)")
    assert rows("new.db") == ["more"]
    assert os.path.exists("new.db")
    with pytest.raises(sqlite3.OperationalError):
        sqlite3.connect("none/new.db")
    (tmp_path / "tmp").mkdir()
    sqlite3.connect(tmp_path / "tmp" / "x.db").close()
    # Of a temporary one nothing is said.
    assert world.notes == [("database", "new.db"), ("written", "none/new.db")]
    world.undo.take_back()
    assert world.content() == world.before


def test_what_needs_no_copy(world: World) -> None:
    """In memory, only read, in a folder that is kept and so a copy already; where tools are live."""
    for name in (":memory:", "", "file:a.db?mode=ro", "file::memory:?cache=shared", "file:x?mode=memory"):
        sqlite3.connect(name, uri=name.startswith("file:")).close()
    assert rows("kept/k.db") == ["copied", "more"]
    assert not world.notes
    world.undo.take_back()
    assert world.content() == world.before
    world.start(tools="live")
    assert rows("a.db") == ["mine", "more"]
    world.undo.take_back()
    assert world.content() != world.before
    assert world.notes == [("written", "a.db")]


def test_one_beyond_the_limit_is_used_as_it_is(world: World) -> None:
    """And that is said, with the reason."""
    world.start(state_limit=1000)
    assert rows("a.db") == ["mine", "more"]
    assert rows("a.db") == ["mine", "more", "more"]
    assert [kind for kind, _ in world.notes] == ["as it is", "written"]
    assert "a.db has " in world.why
    assert "raise TRACEFORK_STATE_LIMIT" in world.why
    world.undo.take_back()
    assert world.content() != world.before


def test_nothing_stays_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in `sqlite3`, imported meanwhile, nor in what took one of our functions for its own."""
    world.undo.take_back()
    for name in ("sqlite3", "sqlite3.dbapi2"):
        monkeypatch.delitem(sys.modules, name)
    world.start()
    import sqlite3 as new
    import sqlite3.dbapi2 as same

    for module in (new, same):
        assert type(module.connect) is not type(len)
    opened, connect, listed = open, new.connect, os.listdir
    world.undo.take_back()
    for module in (new, same):
        assert type(module.connect) is type(len)
    assert listed("kept") == os.listdir("kept")
    with closing(connect("b.db")) as base, opened("kept/k.db", "rb") as file:
        assert base.execute("select x from t").fetchall() == [("mine",)]
        assert os.path.samestat(os.fstat(file.fileno()), os.stat("kept/k.db"))
    assert not world.notes


def test_changes_by_a_descriptor_of_a_folder(world: World) -> None:
    """Which folder that is is not known, so nothing is said of a file of that name here."""
    descriptor = os.open(world.folder, os.O_RDONLY)
    os.mkdir("new")
    inside = os.open("new", os.O_RDONLY)
    for name in ("a.db", "b.db"):
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=inside))
    world.notes.clear()
    os.rename("a.db", "c.db", src_dir_fd=inside, dst_dir_fd=inside)
    os.remove("b.db", dir_fd=inside)
    assert not world.notes
    os.rename("new/c.db", "kept/c.db")
    assert world.notes == [("written", "new/c.db")]
    os.close(inside)
    os.close(descriptor)
    shutil.rmtree("new")


def test_a_temporary_file_in_a_kept_folder(world: World) -> None:
    """It is made and removed in the copy, by functions that were taken before."""
    with tempfile.NamedTemporaryFile(dir="kept") as file:
        assert (world.private.parent / "copy" / os.path.basename(file.name)).exists()
    assert not [name for name in os.listdir("kept") if "tmp" in name]
    assert not world.notes


class _OwnCursor(sqlite3.Cursor):
    pass


class _Own(sqlite3.Connection):
    def cursor(self, factory: Any = _OwnCursor) -> Any:
        return super().cursor(factory)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("attach 'a.db' as other", ()),
        ('-- a note\n ATTACH DATABASE "a.db" AS other;', ()),
        ("attach ? as ?", ("a.db", "other")),
        ("attach :path as other", {"path": "../way/a.db"}),
        ("attach 'file:a.db?mode=rw' as other", ()),
    ],
)
@pytest.mark.parametrize("kind", [sqlite3.Connection, _Own])
@pytest.mark.parametrize("by", ["connection", "cursor", "script"])
def test_one_that_is_attached(world: World, sql: str, parameters: Any, kind: Any, by: str) -> None:
    """By whatever way the statement is run; the user's file stays, and the copy is said."""
    with closing(sqlite3.connect(":memory:", isolation_level=None, factory=kind, uri=True)) as base:
        assert isinstance(base, kind)
        if by == "script":
            if parameters:
                return
            base.executescript(f"create table t (x); insert into t values (';'); {sql}; select 1")
        else:
            (base if by == "connection" else base.cursor()).execute(sql, parameters)
        base.execute("insert into other.t values ('more')")
        assert base.execute("select x from other.t").fetchall() == [("mine",), ("more",)]
        assert isinstance(base.cursor(), sqlite3.Cursor if kind is sqlite3.Connection else _OwnCursor)
    ((kind_of_note, path),) = world.notes
    assert (kind_of_note, os.path.basename(path)) == ("database", "a.db")
    world.undo.take_back()
    assert world.content() == world.before


def test_one_that_is_attached_and_kept(world: World) -> None:
    """It is the kept one's copy; an error tells of it by its own name, and data are never changed."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as base:
        base.execute("attach 'kept/k.db' as other")
        assert base.execute("select x from other.t").fetchall() == [("copied",)]
        os.mkdir("kept/folder")
        with pytest.raises(sqlite3.OperationalError, match=r"unable to open database: kept/folder$"):
            base.execute("attach 'kept/folder' as third")
        said = "; attach 'a.db' as x"
        base.executescript(
            f"create table t (x); insert into t values ('{said.replace(chr(39), chr(39) * 2)}');"
        )
        assert base.execute("select x from t").fetchall() == [(said,)]
        base.execute("vacuum main into 'kept/made.db'")
    assert (world.private.parent / "copy" / "made.db").exists()
    assert not world.notes


@pytest.mark.parametrize("how", ["open", "path", "low", "replace", "rewrite", "copy", "truncate"])
def test_one_that_is_overwritten(world: World, how: str) -> None:
    """As a file, of whose content nothing is asked: a copy is."""
    Path("other").write_bytes(b"other")
    if how == "open":
        with open("b.db", "wb") as file:
            file.write(b"other")
    elif how == "path":
        Path("b.db").write_bytes(b"other")
    elif how == "low":
        descriptor = os.open("b.db", os.O_WRONLY | os.O_TRUNC)
        os.write(descriptor, b"other")
        os.close(descriptor)
    elif how == "replace":
        shutil.copy("other", "new")
        os.replace("new", "b.db")
    elif how == "rewrite":
        with tempfile.NamedTemporaryFile("wb", dir=".", delete=False) as new:
            new.write(b"SQLite format 3\0")
        os.replace(new.name, "b.db")
        assert Path("b.db").read_bytes() == b"SQLite format 3\0"
        Path("b.db").write_bytes(b"other")
    elif how == "copy":
        shutil.copyfile("other", "b.db")
    else:
        os.truncate("b.db", 0)
    assert Path("b.db").read_bytes() == (b"" if how == "truncate" else b"other")
    assert ("database", "b.db") in world.notes
    world.undo.take_back()
    assert world.content() == {**world.before, "other": b"other"}


def test_one_that_is_moved_away(world: World) -> None:
    """It stays where it is, and its copy is moved."""
    os.rename("b.db", "b.old")
    assert not os.path.exists("b.db")
    assert rows("b.old") == ["mine", "more"]
    world.undo.take_back()
    assert world.content().items() >= world.before.items()
