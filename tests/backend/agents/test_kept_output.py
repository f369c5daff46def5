"""What a recorded command prints goes where it went, is kept with its run, and graded like a fork's."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import Desk, as_output, at_desk
from tracefork_backend.agents.kept_output import KeptOutput, kept_output
from tracefork_backend.agents.output import OUTPUT_HEAD, OUTPUT_TAIL
from tracefork_backend.grading.graded import graded_run
from tracefork_backend.grading.regex import regex
from tracefork_backend.matrices.matrix import matrix
from tracefork_backend.rerun.edits import noop


class Reader:
    """The other side of a pipe, read until it ends."""

    def __init__(self) -> None:
        self.source, self.sink = os.pipe()
        self.data = bytearray()
        self.ended = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while piece := os.read(self.source, 2**16):
            self.data += piece
        self.ended.set()

    def all(self) -> bytes:
        """What came, once nobody can write any more."""
        os.close(self.sink)
        assert self.ended.wait(20)
        return bytes(self.data)


def run(code: str) -> tuple[KeptOutput, subprocess.Popen[bytes]]:
    """What is kept of a command, once it has ended."""
    with kept_output() as kept:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=kept.sink)
        kept.started()
        process.wait()
    return kept, process


@pytest.mark.parametrize("size", [0, 10, OUTPUT_HEAD + 1, 1_000_000])
def test_a_pipe_gets_all_of_it(size: int) -> None:
    """In order; beginning and end are kept."""
    reader = Reader()
    with as_output(reader.sink):
        kept, _ = run(f"import sys; sys.stdout.write('a' * ({size} - 1) + 'z' * ({size} > 0))")
    assert kept.output is not None
    data = reader.all()
    assert (len(data), data[-1:]) == (size, b"z" * (size > 0))
    assert kept.output.total == size
    assert kept.output.missing == max(0, size - OUTPUT_HEAD - OUTPUT_TAIL)
    assert kept.output.text().endswith("z") == (size > 0)


def test_a_file_gets_it_where_it_stands(tmp_path: Path) -> None:
    """Two commands in one file that is appended to: each has its own."""
    with open(tmp_path / "log", "ab") as log, as_output(log.fileno()):
        first, _ = run("print('one')")
        second, _ = run("print('two')")
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    assert [kept.output.text() for kept in (first, second) if kept.output] == ["one\n", "two\n"]


def test_what_is_a_terminal_or_takes_errors_too_is_left_alone(tmp_path: Path) -> None:
    """Another order of the lines, or another width and colours, is nothing that a recorder may cause."""
    master, terminal = pty.openpty()
    with as_output(terminal):
        kept, _ = run("import sys; print(sys.stdout.isatty())")
    assert (kept.output, os.read(master, 100)) == (None, b"True\r\n")
    for one in (master, terminal):
        os.close(one)
    with open(tmp_path / "log", "wb") as log, as_output(log.fileno()), as_output(log.fileno(), 2):
        kept, _ = run("import os; [os.write(1 + at % 2, b'%d ' % at) for at in range(20)]")
    assert kept.output is None
    assert (tmp_path / "log").read_text() == "".join(f"{at} " for at in range(20))
    with open(os.devnull, "wb") as nothing, as_output(nothing.fileno()):
        assert run("print(1)")[0].output is None


@pytest.mark.slow
def test_what_the_command_leaves_running_can_print() -> None:
    """Whoever waits for the end of the output waits for that, as ever; the recording does not."""
    reader = Reader()
    child = "import time; time.sleep(1.5); print('late')"
    with as_output(reader.sink):
        began = time.monotonic()
        kept, _ = run(
            f"import subprocess, sys; print('now'); subprocess.Popen([sys.executable, '-c', {child!r}])"
        )
        took = time.monotonic() - began
    assert (took < 1.4, kept.output is not None and kept.output.text()) == (True, "now\n")
    assert reader.all() == b"now\nlate\n"


def test_who_prints_for_nobody_is_told_so() -> None:
    """As by the pipe itself: `run -- agent | head -1` ends."""
    source, sink = os.pipe()
    with as_output(sink):
        os.close(sink)
        with kept_output() as kept:
            process = subprocess.Popen(["yes"], stdout=kept.sink, stderr=subprocess.DEVNULL)
            kept.started()
            assert os.read(source, 2) == b"y\n"
            os.close(source)
            assert process.wait(20) != 0


@pytest.mark.slow
def test_who_does_not_read_is_not_waited_for() -> None:
    """What was printed comes all the same, once it is read."""
    source, sink = os.pipe()
    with as_output(sink):
        began = time.monotonic()
        kept, process = run("print('a' * 100_000)")
        assert (process.returncode, kept.output, time.monotonic() - began < 20) == (0, None, True)
    os.close(sink)
    with open(source, "rb") as file:
        assert len(file.read()) == 100_001


def test_a_recorder_that_is_killed_leaves_the_output_to_the_command(tmp_path: Path) -> None:
    """`kill -9` of `run` ends no agent."""
    agent = tmp_path / "agent.py"
    agent.write_text("import os, time\nprint(os.getppid(), flush=True)\ntime.sleep(1)\nprint('on')\n")
    ours = [sys.executable, "-m", "tracefork_backend.cli", "run", "--store", str(tmp_path / "s")]
    with subprocess.Popen(
        [*ours, "--", sys.executable, str(agent)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        os.kill(int(process.stdout.readline()), signal.SIGKILL)
        assert process.stdout.read() == b"on\n"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose model answers in capitals."""
    with at_desk(tmp_path, monkeypatch) as made:
        yield made


@pytest.mark.slow
def test_a_recorded_run_is_graded_without_a_replay(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what it printed, secrets replaced: the last answer says something else."""
    reader = Reader()
    secret = "sk-ant-api03-" + "k" * 80
    monkeypatch.setenv("TRACEFORK_REDACT_BODIES", "1")
    with as_output(reader.sink):
        recorded = desk.recorded(f"""
            said = say("a")
            print("VERDICT: WON" if said == "A" else "VERDICT: LOST", {secret!r})
        """)
    assert secret.encode() in reader.all()
    kept = graded_run(recorded)
    assert (kept.unseen, kept.text[:12], secret in kept.text) == (False, "VERDICT: WON", False)
    monkeypatch.setattr("tracefork_backend.matrices.matrix.replay", None)
    made = matrix([(recorded, 0)], [noop()], oracle=regex("VERDICT: WON", "VERDICT: LOST"))
    assert [cell.parent_outcome for cell in made.cells] == [True]
