"""Python code that names a file of which there is a copy works on the copy, and is told its own names."""

from __future__ import annotations

import builtins
import bz2
import errno
import glob
import io
import os
import pickle
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from io import open as taken
from pathlib import Path

import pytest

from tracefork_otel.private.places import Places
from tracefork_otel.private.redirect import redirect
from tracefork_otel.undo import Undo


class World:
    """A user's folder with a kept file and a kept folder, and copies that differ from them."""

    def __init__(self, folder: Path) -> None:
        self.user, self.copies = folder / "user", folder / "copies"
        for base, said in ((self.user, "mine"), (self.copies, "copy")):
            (base / "memory" / "deep").mkdir(parents=True)
            (base / "a.txt").write_text(said)
            (base / "memory" / "b.txt").write_text(said)
        (self.user / "link").symlink_to("memory")
        self.before = self.seen()
        self.places = Places(
            [(str(self.user / name), str(self.copies / name)) for name in ("a.txt", "memory", "new.db")],
            spared=[self.user / "memory" / "store"],
        )

        self.told: list[str] = []

    def put(self, files: dict[str, str]) -> None:
        """Write files of the user's, by another process's hand."""
        self.undo.take_back()
        for name, content in files.items():
            (self.user / name).parent.mkdir(exist_ok=True)
            (self.user / name).write_text(content)
        self.before = self.seen()
        self.start()

    def start(self) -> None:
        """Redirect the test's own code."""
        self.undo = Undo()
        redirect(self.places, self.undo, self.told.append)

    def seen(self) -> dict[str, str]:
        """The user's files."""
        files = (path for path in self.user.rglob("*") if path.is_file() and not path.is_symlink())
        return {str(path.relative_to(self.user)): path.read_text() for path in files}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The test's own code is redirected, and stands in the user's folder; no file of the user's changes."""
    made = World(tmp_path)
    monkeypatch.chdir(made.user)
    made.start()
    yield made
    made.undo.take_back()
    assert made.seen() == made.before


NAMES: dict[str, Callable[[World], str | bytes | Path]] = {
    "relative": lambda world: "memory/b.txt",
    "dotted": lambda world: "./memory/../memory//b.txt",
    "absolute": lambda world: str(world.user / "memory" / "b.txt"),
    "bytes": lambda world: os.fsencode(world.user / "memory" / "b.txt"),
    "path": lambda world: Path("memory") / "b.txt",
    "by a link": lambda world: "link/b.txt",
}


@pytest.mark.parametrize("name", NAMES)
def test_by_whatever_name(world: World, name: str) -> None:
    """A file is found, read, changed and removed in the copy."""
    path = NAMES[name](world)
    with open(path) as file:
        assert (file.read(), file.name) == ("copy", path if isinstance(path, str | bytes) else str(path))
    assert Path(os.fsdecode(path)).read_text() == "copy"
    with open(os.open(path, os.O_RDWR), "r+") as file:
        assert file.read() == "copy"
    with open(path, "a") as file:
        file.write("!")
    assert os.stat(path).st_size == 5
    assert (world.copies / "memory" / "b.txt").read_text() == "copy!"
    os.remove(path)
    assert not os.path.exists(path)


def test_what_is_told_has_the_agents_own_names(world: World) -> None:
    """Listings, walks, errors, the current folder, what a path is without links."""
    assert [entry.path for entry in os.scandir("memory") if entry.is_file()] == ["memory/b.txt"]
    assert sorted(glob.glob(f"{world.user}/memory/*")) == [
        f"{world.user}/memory/b.txt",
        f"{world.user}/memory/deep",
    ]
    assert [folder for folder, _, _ in os.walk("memory")] == ["memory", "memory/deep"]
    assert sorted(path.name for path in Path("memory").iterdir()) == ["b.txt", "deep"]
    for fails in (lambda: os.listdir("memory/none"), lambda: os.rename("memory/none", "x")):
        with pytest.raises(FileNotFoundError) as found:
            fails()
        assert found.value.filename in ("memory/none", f"{world.user}/memory/none")
        assert "copies" not in str(found.value)
    assert os.path.realpath("link/b.txt") == f"{world.user}/memory/b.txt"
    os.chdir("memory")
    assert (os.getcwd(), Path("b.txt").read_text()) == (f"{world.user}/memory", "copy")
    os.chdir(world.user)


def test_files_come_and_go_between_copies_and_the_rest(world: World, tmp_path: Path) -> None:
    """As a program does that writes another file first, and lets it take the place."""
    with open("a.txt.tmp", "w") as file:
        file.write("whole")
    os.replace("a.txt.tmp", "a.txt")
    assert (Path("a.txt").read_text(), (world.copies / "a.txt").read_text()) == ("whole", "whole")
    shutil.copytree("memory", tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "b.txt").read_text() == "copy"
    shutil.rmtree("memory")
    assert not Path("memory").exists()
    shutil.move(tmp_path / "elsewhere", "memory")
    assert (world.copies / "memory" / "b.txt").read_text() == "copy"
    os.makedirs("memory/x/y")
    os.symlink("memory", "other")
    os.remove("other")  # the link, not where it leads
    assert os.path.islink("link")
    os.symlink("b.txt", "memory/l")
    assert (os.readlink("memory/l"), Path("memory/l").read_text()) == ("b.txt", "copy")


def test_databases(world: World) -> None:
    """One that is not there before, by its path or by a URI, with its files beside."""
    with sqlite3.connect("new.db") as one:
        one.execute("pragma journal_mode=wal")
        one.execute("create table t (x)")
    assert os.path.exists("new.db-wal")
    for uri in ("file:new.db?mode=ro", f"file://{world.user}/new.db", f"file://localhost{world.user}/new.db"):
        assert sqlite3.connect(uri, uri=True).execute("select name from sqlite_master").fetchone() == ("t",)
    assert sqlite3.connect(database=":memory:").execute("select 1").fetchone() == (1,)
    assert (world.copies / "new.db").exists()


def test_the_store_inside_a_kept_folder_is_no_copy(world: World) -> None:
    """What records uses the store itself."""
    assert not world.places.has(world.user / "memory" / "store" / "wal" / "x")
    assert world.places.has(world.user / "memory" / "stores")


@pytest.mark.slow
def test_all_is_put_back(world: World) -> None:
    """Nothing of ours is left in a process that goes on; meanwhile our functions are no methods."""
    undo, before = Undo(), (builtins.open, io.open, os.stat, os.scandir, sqlite3.connect)
    redirect(world.places, undo)
    assert os.stat in os.supports_follow_symlinks
    assert type("Class", (), {"open": open})().open("a.txt").read() == "copy"
    undo.take_back()
    assert (builtins.open, io.open, os.stat, os.scandir, sqlite3.connect) == before


def test_what_is_beside_and_was_there_before(world: World) -> None:
    """A backup is replaced, removed, appended to and linked to in the copy; what is read is the user's."""
    undone = {name: f"user's {name}" for name in ("a.txt.bak", "a.txt~", "a.txt.log", "a.txt-old")}
    world.put(undone)
    assert {name: Path(name).read_text() for name in undone} == undone
    assert not list(world.copies.glob("a.txt?*"))
    with open("a.txt.log", "a") as log:
        log.write("+")
    assert Path("a.txt.log").read_text() == "user's a.txt.log+"
    os.remove("a.txt-old")
    assert not os.path.exists("a.txt-old")
    os.link("a.txt", "a.txt-old")
    os.replace("a.txt", "a.txt~")
    os.rename("a.txt~", "a.txt.bak")
    assert (Path("a.txt.bak").read_text(), Path("a.txt-old").read_text()) == ("copy", "copy")
    with pytest.raises(FileNotFoundError):
        os.rename("a.txt", "a.txt.bak")
    assert Path("a.txt.bak").read_text() == "copy"
    os.replace("a.txt.bak", "a.txt", src_dir_fd=None, dst_dir_fd=None)
    assert (world.copies / "a.txt").read_text() == "copy"


def test_what_goes_out_of_a_copy_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a move, a link, a symbolic link, also to another disk; what is linked is no one file with a copy."""
    os.rename("memory/b.txt", "out")
    os.link("a.txt", "linked")
    assert os.stat("linked").st_nlink == 1
    os.symlink("memory", "way")
    os.chdir("memory")
    with open("../up", "w") as file:
        file.write("x")
    os.chdir(world.user)
    assert world.told == ["out", "linked", "way", f"{world.user}/up"]
    assert os.path.exists(world.user / "up")

    def other_disk(src: str, dst: str, **_: object) -> None:
        raise OSError(errno.EXDEV, "other disk", src, None, dst)

    with pytest.raises(FileExistsError):
        os.link("a.txt", "linked")
    monkeypatch.setattr("os.rename", other_disk)
    undo = Undo()
    redirect(world.places, undo)
    os.mkdir("empty")
    os.rename("memory", "empty")
    assert (os.listdir("empty"), os.path.exists("memory")) == (["deep"], False)
    with pytest.raises(IsADirectoryError):
        os.rename("a.txt", "empty")
    undo.take_back()
    for name in ("out", "linked", "way", "up"):
        os.remove(name)
    shutil.rmtree("empty")


def test_a_folder_made_beside_and_up_from_a_copy(world: World) -> None:
    """All that is in it is in the copy; from inside, `..` is the agent's own folder."""
    os.mkdir("memory.tmp")
    Path("memory.tmp/a").write_text("x")
    assert (world.copies / "memory.tmp" / "a").exists()
    os.chdir("memory.tmp")
    assert (os.getcwd(), os.getcwdb()) == (f"{world.user}/memory.tmp", os.fsencode(world.user / "memory.tmp"))
    assert Path("../memory/b.txt").read_text() == "copy"
    assert sorted(os.listdir("..")) == ["a.txt", "link", "memory"]
    os.chdir("..")
    assert os.getcwd() == str(world.user)
    os.rename("memory.tmp", "memory/new")
    assert os.listdir("memory/new") == ["a"]


def test_one_named_after_another(world: World) -> None:
    """Each has its own copy, and its own files beside."""
    world.places.add(str(world.user / "new"), str(world.copies / "elsewhere"))
    assert world.places.copy_of("new.db") == str(world.copies / "new.db")
    assert world.places.copy_of("new.db-wal") == str(world.copies / "new.db-wal")
    assert world.places.copy_of("new.txt") == str(world.copies / "elsewhere.txt")


def test_links_that_come_to_be(world: World) -> None:
    """A folder that was not there, and one that is another then."""
    assert not os.path.exists("now/b.txt")
    os.symlink("memory", "now")
    assert Path("now/b.txt").read_text() == "copy"
    os.remove("now")
    os.mkdir("now")
    assert not os.path.exists("now/b.txt")
    os.rmdir("now")
    os.rename("link", "now")
    assert Path("now/b.txt").read_text() == "copy"
    os.rename("now", "link")


def test_functions_are_as_the_originals(world: World) -> None:
    """They are pickled, take None, and make files with the modes of others."""
    for function in (os.listdir, os.open, open, io.open, sqlite3.connect):
        assert pickle.loads(pickle.dumps(function)) is function
    open("a.txt", opener=None).close()
    open("a.txt", "rb", -1, None, None, None, True, None).close()
    before = os.umask(0o022)
    open("memory/made", "w").close()
    os.umask(before)
    assert os.stat("memory/made").st_mode & 0o777 == 0o644


def test_what_took_a_function_before_uses_the_copies_too(world: World) -> None:
    """Modules that did so by import or as a default, and openers; all of them have theirs back then."""
    for made, name in ((bz2.open, "a.bz2"), (tarfile.open, "a.tar"), (taken, "taken")):
        made(f"memory/{name}", "w").close()
        assert (world.copies / "memory" / name).exists()
    with tempfile.NamedTemporaryFile(dir=world.user / "memory") as file:
        inside = world.copies / "memory" / Path(file.name).name
        assert (os.path.dirname(file.name), inside.exists()) == (str(world.user / "memory"), True)
    assert not inside.exists()
    with open("memory/mine", "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        assert file.name == "memory/mine"
    assert (world.copies / "memory" / "mine").stat().st_mode & 0o777 == 0o600
    world.undo.take_back()
    assert (bz2.__dict__["_builtin_open"], taken) == (open, open)
    assert type(open) is type(len)


def test_a_folder_beside_that_was_there_before(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is removed, added to and replaced in the copy, unless it is too much for one: that is told."""
    world.put({f"memory-{name}/f": f"user's {name}" for name in ("bak", "old", "big")})
    with pytest.raises(OSError, match="not empty"):
        os.rename("memory", "memory-old")
    Path("memory-old/new").write_text("x")
    assert sorted(os.listdir("memory-old")) == ["f", "new"]
    shutil.rmtree("memory-bak")
    assert not os.path.exists("memory-bak")
    shutil.copytree("memory", "memory-bak")
    assert sorted(os.listdir("memory-bak")) == ["b.txt", "deep"]
    assert not world.told
    monkeypatch.setattr("tracefork_otel.private.places.FILES", -1)
    assert world.places.copy_of("memory-big", change="part") is None
    os.mkdir("elsewhere")
    shutil.rmtree("elsewhere")
    assert world.told == ["elsewhere"]
