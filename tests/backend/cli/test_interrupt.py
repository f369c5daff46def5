"""Ctrl-C ends a query, whatever it is at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from tracefork_backend.cli.interrupt import Terminated, at_once, status_of, terminable
from tracefork_backend.cli.searching import resumable
from wal_samples import write_conversation

from tracefork_otel.store import sealing

QUERIES = (
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
    "SELECT count(*) FROM range(10000000000000) AS a(n) WHERE n % 7 = 3",
)


@pytest.mark.slow
@pytest.mark.parametrize("query", QUERIES)
def test_ctrl_c_ends_a_query(tmp_path: Path, query: str) -> None:
    """Within a second or so, with status 130, and not a word."""
    write_conversation(tmp_path, 1)
    assert sealing.seal_dead(tmp_path) == []
    command = (sys.executable, "-m", "tracefork_backend.cli", "sql", query, "--store", str(tmp_path))
    asked = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        time.sleep(3)
        assert asked.poll() is None
        asked.send_signal(signal.SIGINT)
        out, _ = asked.communicate(timeout=20)
    finally:
        asked.kill()
    assert (asked.returncode, out) == (130, b"")


@pytest.mark.slow
def test_a_query_ends_after_its_time(tmp_path: Path) -> None:
    """With status 2 and one line that says how to give it more."""
    write_conversation(tmp_path, 1)
    command = (sys.executable, "-m", "tracefork_backend.cli", "sql", QUERIES[0], "--store", str(tmp_path))
    asked = subprocess.run([*command, "--timeout", "0.2"], capture_output=True, text=True, timeout=60)
    assert (asked.returncode, asked.stdout) == (2, "")
    assert asked.stderr.startswith("error: the query took longer than 0.2 s")
    assert asked.stderr.count("\n") == 1


def test_what_does_not_end_when_it_is_asked_to_is_ended() -> None:
    """Whatever the library is at, with the same words."""
    code = (
        "import time; from tracefork_backend.cli.interrupt import at_last\nwith at_last(0.1): time.sleep(60)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: the query took longer than 0.1 s")


_NEVER_BACK = """
import os, signal, time
from tracefork_backend.cli.interrupt import at_once, terminable
signal.signal({0}, lambda *_: None)
with at_once(0.1):
    os.kill(os.getpid(), {0})
    time.sleep(60)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_does_not_come_back_for_a_signal_is_ended(number: int, status: int) -> None:
    """A library that is at work, or one that takes the signal for its own."""
    code = _NEVER_BACK.format(int(number))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (status, "")


def test_duckdbs_word_for_sigterm_is_no_ctrl_c() -> None:
    """It has one word for both, and the exit status tells which it was."""

    def asked() -> None:
        with terminable(), at_once():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(30)
            except KeyboardInterrupt:
                raise RuntimeError("Query interrupted") from None

    with pytest.raises(Terminated):
        asked()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_serve_ends_by_ctrl_c_as_any_command_does(tmp_path: Path, number: int, status: int) -> None:
    """SIGTERM is how those who keep servers ask for a good end, which is 0."""
    words = ("serve", "--port", "0", "--no-otlp", "--store", str(tmp_path))
    command = (sys.executable, "-m", "tracefork_backend.cli", *words)
    served = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert served.stderr is not None
        address = next(word for word in served.stderr.readline().split() if word.startswith("http"))
        assert httpx2.get(address, timeout=20).status_code == 200  # it is stopped by signals from now on
        served.send_signal(number)
        _, said = served.communicate(timeout=20)
    finally:
        served.kill()
    assert (served.returncode, said) == (status, "")


@pytest.mark.slow
def test_ctrl_c_is_known_by_the_word_that_duckdb_has_for_it() -> None:
    """So it is one in any command, also while it opens the store."""
    code = f"""
import duckdb
from tracefork_backend.cli.interrupt import is_interrupt
connection = duckdb.connect(config={{"threads": 1}})
print("ready", flush=True)
try:
    connection.execute({QUERIES[1]!r}).fetchall()
except RuntimeError as error:
    print(is_interrupt(error))
"""
    # In a process of its own: where DuckDB misses a signal nothing of Python's runs, no time limit either.
    asked = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert asked.stdout is not None
    try:
        assert asked.stdout.readline() == "ready\n"
        while asked.poll() is None:
            time.sleep(1)
            asked.send_signal(signal.SIGINT)
        assert asked.stdout.read() == "True\n"
    finally:
        asked.kill()
        asked.stdout.close()


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (Terminated(), 143)])
def test_what_is_known_at_an_interrupt_is_no_answer(
    capsys: pytest.CaptureFixture[str], error: KeyboardInterrupt, status: int
) -> None:
    """It is said on standard error: what reads JSON from standard output meets nothing else."""
    error.add_note("1 of 3\nFAIL \x1b[2J")
    assert status_of(error) == status
    assert tuple(capsys.readouterr()) == ("", "1 of 3\nFAIL \\x1b[2J\n")


_WHILE_LOADING = """
import os, signal, sys
from tracefork_backend import cli

class Interrupting:
    def find_spec(self, name, *_):
        if name == "tracefork_backend.cli.app":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
sys.argv = ["tracefork-otel", "ls"]
cli.main()
"""


def test_ctrl_c_while_it_loads_ends_it_without_a_word(tmp_path: Path) -> None:
    """As a signal ends a program that has begun nothing: shells say 130, and nobody sees a traceback."""
    done = subprocess.run(
        [sys.executable, "-c", _WHILE_LOADING], cwd=tmp_path, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


@pytest.mark.parametrize(
    ("resumed", "begins", "said"),
    [
        (None, False, "interrupted before it began: there is nothing to go on with"),
        (None, True, "interrupted; what was paid for is kept: tracefork-otel blame resume bbbbbbbb"),
        ("a" * 16, False, "interrupted; what was paid for is kept: tracefork-otel blame resume aaaaaaaa"),
    ],
)
def test_an_interrupt_names_its_own_experiment(
    resumed: str | None, begins: bool, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or none, where it came before there was one: the last of the store is another's."""
    there = ["a" * 16]

    def search() -> None:
        with resumable("blame", lambda: there, resumed):
            if begins:
                there.append("b" * 16)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search()
    assert capsys.readouterr().err == said + "\n"
