"""Standard input reaches the recorded command as it comes, is kept as far as it was read, and given back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from forked import Desk, at_desk
from tracefork_backend.agents.given_input import LIMIT, given_input
from tracefork_backend.rerun.edits import text
from tracefork_backend.rerun.forking import fork
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.rerun.replaying import replay

from tracefork_otel import Tape, UsageError
from tracefork_otel.tape.start import given_input as bytes_of
from tracefork_otel.tape.start import kept_input


@contextmanager
def as_input(descriptor: int) -> Iterator[None]:
    """Within the block that is this process's standard input."""
    before = os.dup(0)
    os.dup2(descriptor, 0)
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)


@contextmanager
def pipe(data: bytes, *, ends: bool = True) -> Iterator[None]:
    """Standard input is a pipe that is fed with the data, and stays open where it does not end."""
    reader, writer = os.pipe()
    held = None if ends else os.dup(writer)

    def feed() -> None:
        with suppress(BrokenPipeError), open(writer, "wb", buffering=0) as file:
            file.write(data)

    feeder = threading.Thread(target=feed)
    feeder.start()
    with as_input(reader):
        os.close(reader)
        yield
    feeder.join()
    if held is not None:
        os.close(held)


def run(code: str) -> tuple[bytes, bytes, bool]:
    """What a command reads of our standard input, and what is kept of that."""
    with given_input() as given:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, stdin=given.source, stdout=subprocess.PIPE, check=True)
    return done.stdout, bytes(given.data), given.beyond


ALL = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
LINE = "import os; os.write(1, os.read(0, 4))"
NOTHING = "pass"


@pytest.mark.parametrize("data", [b"one\ntwo\n", b"\xff\x00" * 70_000, b""])
def test_a_pipe_is_handed_on(data: bytes) -> None:
    """All of it arrives, and is kept."""
    with pipe(data):
        assert run(ALL) == (data, data, False)


def test_what_nobody_reads_is_not_kept() -> None:
    """Of a pipe that goes on for ever, and of one that is not read, only that is kept which was read."""
    with pipe(b"one\ntwo\n", ends=False):
        assert run(LINE) == (b"one\n", b"one\n", False)
    with pipe(b"one\ntwo\n", ends=False):
        assert run(NOTHING) == (b"", b"", False)
    with pipe(b"y\n" * LIMIT):
        assert run(LINE) == (b"y\ny\n", b"y\ny\n", False)


def test_a_file_is_left_as_it_is(tmp_path: Path) -> None:
    """The command reads on from where others stopped, and others from where it does."""
    (tmp_path / "file").write_bytes(b"zero\none\ntwo\n")
    with open(tmp_path / "file", "rb", buffering=0) as file, as_input(file.fileno()):
        os.read(0, 5)
        assert run(NOTHING) == (b"", b"", False)
        assert run(LINE) == (b"one\n", b"one\n", False)
        assert run(ALL) == (b"two\n", b"two\n", False)


def test_more_than_is_kept(tmp_path: Path) -> None:
    """It arrives whole, and nothing of it is kept."""
    data = b"x" * (LIMIT + 1)
    (tmp_path / "file").write_bytes(data)
    with pipe(data):
        assert run(ALL) == (data, b"", True)
    with open(tmp_path / "file", "rb") as file, as_input(file.fileno()):
        assert run(ALL) == (data, b"", True)


def test_a_terminal_is_not_swallowed() -> None:
    """It is the command's own, as is any other device, and what was typed ahead stays there."""
    ours, theirs = os.openpty()
    try:
        os.write(ours, b"typed\n")
        with as_input(theirs), given_input() as given:
            assert given.source is None
            assert os.read(0, 10) == b"typed\n"
        assert not given.data
    finally:
        os.close(ours)
        os.close(theirs)
    with open(os.devnull, "rb") as file, as_input(file.fileno()), given_input() as given:
        assert given.source is None


@pytest.mark.parametrize("data", [b"", "caf\xe9\0".encode(), b"\xff\xfe", b"base64:AA=="])
def test_bytes_are_kept_as_text(data: bytes) -> None:
    """Whatever they are, they come back."""
    assert bytes_of(kept_input(data)) == data


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose agent asks what it is given by standard input."""
    with at_desk(tmp_path, monkeypatch) as desk:
        desk.write("print(say(sys.stdin.read()), say('more'))")
        yield desk


@pytest.mark.slow
def test_it_is_given_back(desk: Desk, tmp_path: Path) -> None:
    """To replays, forks, the fork of a fork, and what is made of a tape."""
    with pipe("what is n\xe9w?\n".encode()):
        desk.record()
    run = desk.run()
    assert run.start.stdin == "what is n\xe9w?\n"
    with pipe(b"something else"):
        assert replay(run).receipt[-1] == "PASS    bit-exact"
    made = fork(run, at=1, edit=text("other"))
    assert made.problem is None
    assert replay(desk.store.run(made.run_id)).passed
    reconstruct(run.store, run).dump(tmp_path / "run.tape")
    assert replay(Tape.load(tmp_path / "run.tape")).passed


@pytest.mark.slow
def test_a_pipe_is_given_back_as_a_pipe(desk: Desk, tmp_path: Path) -> None:
    """An agent that asks what it reads from, as asyncio's `connect_read_pipe` does; also off a tape file."""
    desk.write("import os, stat; say(sys.stdin.read()); say(str(stat.S_ISFIFO(os.fstat(0).st_mode)))")
    with pipe(b"task"):
        desk.record()
    run = desk.run()
    assert run.start.stdin_kind == "pipe"
    assert replay(run).passed
    reconstruct(run.store, run).dump(tmp_path / "run.tape")
    assert replay(Tape.load(tmp_path / "run.tape")).passed


@pytest.mark.slow
def test_what_is_too_long_is_refused(desk: Desk) -> None:
    """By its reason, before anything runs."""
    desk.write("say(str(len(sys.stdin.read())))")
    with pipe(b"x" * (LIMIT + 1)):
        assert desk.record().exit_status == 0
    run = desk.run()
    for again in (lambda: replay(run), lambda: fork(run, at=0, edit=text("x"))):
        with pytest.raises(UsageError, match="read more than 1048576 bytes of standard input"):
            again()


@pytest.mark.slow
def test_a_closed_input_is_told_from_an_empty_one(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a command whose standard input was closed when we began, whatever has its number since."""
    desk.write("say('x')")
    monkeypatch.setattr(sys, "__stdin__", None)
    desk.record()
    assert desk.run().start.stdin_kind == "closed"
