"""A known library's cache on disk is another one in a replay, empty at first; what is written is noted."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tracefork_otel.private.caches import KNOWN, private_caches
from tracefork_otel.private.places import Places
from tracefork_otel.private.redirect import redirect
from tracefork_otel.private.writes import watch_writes
from tracefork_otel.state.giving import give, read_places, write_places
from tracefork_otel.undo import Undo

STAND_IN = """
import os

class {name}:
    def __init__(self, {argument}="cache", other=1):
        self.place = {argument}
        os.makedirs(os.path.dirname(os.path.abspath({argument})), exist_ok=True)
        with open({argument}, "a+") as file:
            file.seek(0)
            self.found = file.read()
            file.write("answer")
"""


class Noting(SimpleNamespace):
    """What the copies need of a session."""

    def __init__(self) -> None:
        super().__init__(process_id="1", notes=[])

    def note(self, kind: str, attributes: Any) -> None:
        """Remember it."""
        self.notes.append((kind, attributes["path"]))


@pytest.fixture
def session() -> Any:
    """A session that remembers its notes."""
    return Noting()


@pytest.fixture
def undo() -> Iterator[Undo]:
    """Changes that are taken back at the end."""
    made = Undo()
    yield made
    made.take_back()


@pytest.mark.parametrize("imported", [False, True], ids=["new", "imported"])
@pytest.mark.parametrize("known", KNOWN, ids=lambda known: f"{known.module}.{known.name}")
def test_a_known_cache_is_empty_at_first(
    known: Any,
    imported: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    session: Any,
    undo: Undo,
) -> None:
    """The user's has neither what a replay is answered, nor answers it; two caches of one place are one."""
    package, _, module = known.module.partition(".")
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    (tmp_path / package / f"{module}.py").write_text(STAND_IN.format(**known._asdict()))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "cache").write_text("warm")
    (tmp_path / "private").mkdir()
    give((), tmp_path, tmp_path / "private" / "p")
    places = Places(())

    def use(path: str, copy: str) -> bool:
        if places.has(path):
            return False
        places.add(path, copy)
        return True

    redirect(places, undo)
    if imported:
        __import__(known.module)
    private_caches(session, tmp_path / "private" / "p", use, undo)
    cls: Callable[..., Any] = getattr(__import__(known.module, fromlist=["x"]), known.name)
    assert [cls().found, cls(str(tmp_path / "cache")).found] == ["", "answer"]
    assert cls(**{known.argument: "deep/other"}).found == ""
    assert session.notes == [("cache", str(tmp_path / "cache")), ("cache", str(tmp_path / "deep" / "other"))]
    undo.take_back()
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    assert (tmp_path / "cache").read_text() == "warm"


def test_what_is_written_beside_is_noted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session: Any, undo: Undo
) -> None:
    """Files that are opened to write, and databases; not copies, ours, temporary ones, devices."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    for name in ("tmp", "ours", "private"):
        (tmp_path / name).mkdir()
    (tmp_path / "read.txt").write_text("x")
    (tmp_path / "gone.txt").write_text("x")
    redirect(Places([(str(tmp_path / "kept.txt"), str(tmp_path / "private" / "kept.txt"))]), undo)
    watch_writes(session, [tmp_path / "ours", tmp_path / "private"], undo)
    for name in ("kept.txt", "ours/x", "tmp/x", "a.txt", "a.txt", "/dev/null"):
        with open(name, "w") as file:
            file.write("x")
    Path("read.txt").read_text()
    sqlite3.connect(":memory:").close()
    sqlite3.connect("b.db").close()
    sqlite3.connect("file:read.txt?mode=ro", uri=True).close()
    os.close(os.open("c.txt", os.O_CREAT | os.O_RDWR))
    os.remove("gone.txt")
    names = ("a.txt", "b.db", "c.txt", "gone.txt")
    assert session.notes == [("written", str(tmp_path / name)) for name in names]
    undo.take_back()
    (tmp_path / "later.txt").write_text("x")
    assert len(session.notes) == len(names)


def test_places_are_what_was_written_down(tmp_path: Path) -> None:
    """Also odd names."""
    write_places(tmp_path, [("/a\udcff b\n", tmp_path / "0")])
    assert read_places(tmp_path) == [("/a\udcff b\n", str(tmp_path / "0"))]
