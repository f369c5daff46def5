"""Programs of other languages, and libraries that open files by themselves, are given the copies."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tracefork_otel.private.start import use_copies
from tracefork_otel.settings import Settings
from tracefork_otel.state.giving import give, write_places
from tracefork_otel.undo import Undo


class World:
    """A user's folder with a file and a folder that are kept, their copies, and a replay."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.copy = folder / "user", folder / "copy"
        for place, said in ((self.folder, "mine"), (self.copy, "copied")):
            (place / "kept").mkdir(parents=True)
            (place / "kept" / "inside").write_text(said)
            (place / "notes.txt").write_text(said)
        (self.folder / "inside").write_text("outside")
        private = folder / "private"
        give((), folder, private)
        write_places(private, [(str(self.folder / name), self.copy / name) for name in ("notes.txt", "kept")])
        self.notes: list[tuple[str, str]] = []
        self.undo = Undo()
        session: Any = SimpleNamespace(
            process_id="1", note=self._note, settings=Settings(private=private, store=folder / "store")
        )
        use_copies(session, self.undo)

    def _note(self, kind: str, attributes: Any) -> None:
        self.notes.append((kind, os.path.basename(attributes["path"])))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The replay's process is in the user's folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "user").mkdir()
    monkeypatch.chdir(tmp_path / "user")
    made = World(tmp_path)
    yield made
    made.undo.take_back()


@pytest.mark.parametrize(
    "argv",
    [
        ["cat", "notes.txt"],
        [b"cat", b"./notes.txt"],
        ["cat", "{folder}/notes.txt"],
        ["cat", "{folder}/kept/inside"],
        ["cat", "kept/../notes.txt"],
        ["dd", "status=none", "if=notes.txt"],
    ],
)
def test_by_an_argument(world: World, argv: list[Any]) -> None:
    """A name of a kept file, or of one below a kept folder, however it is written; told is what was given."""
    words = [word.format(folder=world.folder) if isinstance(word, str) else word for word in argv]
    ended = subprocess.run(words, capture_output=True, check=True)
    assert ended.stdout == b"copied"
    assert ended.args == words


def test_other_arguments_are_as_they_are(world: World) -> None:
    """Words that are no such names, and all that a Python or a shell is told."""
    said = subprocess.check_output(["echo", "notes", "kept/none", "x=1", "-n", ""], text=True)
    assert said == "notes kept/none x=1 -n \n"
    line = "import sys; print(sys.argv[1:])"
    assert subprocess.check_output([sys.executable, "-Sc", line, "notes.txt"], text=True) == "['notes.txt']\n"
    assert subprocess.check_output("cat notes.txt", shell=True, text=True) == "mine"
    with pytest.raises(subprocess.CalledProcessError) as caught:
        subprocess.run(["test", "-d", "notes.txt"], check=True)
    assert caught.value.cmd == ["test", "-d", "notes.txt"]


def test_by_the_folder_in_which_it_starts(world: World) -> None:
    """Where that is kept, or below; relative names are those of the copy then, and no others."""
    assert subprocess.check_output("cat inside; echo x > made", shell=True, cwd="kept") == b"copied"
    assert subprocess.check_output(["cat", "inside"], cwd=world.folder / "kept") == b"copied"
    assert subprocess.check_output(["echo", "inside"], cwd="kept") == b"inside\n"
    os.chdir("kept")
    assert subprocess.check_output(["cat", "inside", "made"]) == b"copiedx\n"
    os.chdir("..")
    assert subprocess.check_output(["cat", "inside"]) == b"outside"
    with pytest.raises(FileNotFoundError) as caught:
        subprocess.run(["cat"], cwd="kept/none")
    assert caught.value.filename == "kept/none"
    world.undo.take_back()
    assert sorted(os.listdir("kept")) == ["inside"]


def test_in_a_folder_that_is_kept_whole(world: World, tmp_path: Path) -> None:
    """As `--state .` keeps it: what is made there is made in the copy, but by a Python, which knows."""
    world.undo.take_back()
    made = World(tmp_path / "second")
    made.undo.take_back()
    write_places(tmp_path / "second" / "private", [(str(made.folder), made.copy)])
    os.chdir(made.folder)
    session: Any = SimpleNamespace(
        process_id="1",
        note=lambda *_: None,
        settings=Settings(private=tmp_path / "second" / "private", store=tmp_path / "store"),
    )
    use_copies(session, made.undo)
    subprocess.run(["touch", "one"], check=True)
    subprocess.run("touch two; cat notes.txt > three", shell=True, check=True)
    line = "import os; print(os.getcwd())"
    assert subprocess.check_output([sys.executable, "-Sc", line], text=True).strip() == str(made.folder)
    assert Path("three").read_text() == "copied"
    made.undo.take_back()
    assert sorted(os.listdir()) == ["inside", "kept", "notes.txt"]
    os.chdir(world.folder)


def test_by_the_environment(world: World) -> None:
    """A variable that is a kept path; in asyncio too."""
    own = {**os.environ, "NOTES": str(world.folder / "notes.txt"), "OTHER": "notes.txt"}
    assert subprocess.check_output('cat "$NOTES"; echo "$OTHER"', shell=True, env=own) == b"copiednotes.txt\n"

    async def asked() -> bytes:
        started = await asyncio.create_subprocess_exec("cat", "notes.txt", stdout=subprocess.PIPE)
        return (await started.communicate())[0]

    assert asyncio.run(asked()) == b"copied"


def test_libraries_that_open_files_by_themselves(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is the copy; what is not is noted, unless it is only read."""
    asked: list[Any] = []
    lmdb: Any = ModuleType("lmdb")
    lmdb.open = lambda path, **how: asked.append(path)
    monkeypatch.setitem(sys.modules, "lmdb", lmdb)
    world.undo.take_back()
    made = World(world.folder.parent / "second")
    os.chdir(made.folder)
    import duckdb

    duckdb.connect("kept/d.duckdb").execute("create table t as select 1 as x").close()
    duckdb.connect(database=str(made.folder / "d.duckdb")).close()
    duckdb.connect(":memory:").close()
    duckdb.connect().close()
    lmdb.open("kept/l")
    lmdb.open("l", readonly=True)
    made.undo.take_back()
    assert (made.copy / "kept" / "d.duckdb").exists()
    assert os.listdir("kept") == ["inside"]
    assert asked == [str(made.copy / "kept" / "l"), "l"]
    assert made.notes == [("written", "d.duckdb")]
