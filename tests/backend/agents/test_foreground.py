"""Ctrl-C while a command is recorded: the command has it, and nothing of the command is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tracefork_backend.agents import recording
from tracefork_backend.simulate import ModelServer
from tracefork_backend.store import open_store

from tracefork_otel.seam.children import BOOT

RUN = (sys.executable, "-m", "tracefork_backend.cli", "run", "--store", "store", "--")


def alive(pid: int) -> bool:
    """Whether the process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(true: Callable[[], bool]) -> bool:
    """Wait for it, half a minute at most."""
    end = time.monotonic() + 30
    while not (held := true()) and time.monotonic() < end:
        time.sleep(0.02)
    return held


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone says whose a process is")
@pytest.mark.parametrize("group", [True, False], ids=["typed", "sent to us alone"])
def test_ctrl_c_leaves_nothing_of_the_command(tmp_path: Path, group: bool) -> None:
    """Not what a shell started with `&`, which ignores Ctrl-C; what began a session of its own stays."""
    apart, front = (f"sh -c 'echo $$ >{name}; exec sleep 300'" for name in ("apart", "front"))
    script = f"sleep 300 & echo $! >left; setsid {apart} 2>&- & {front}"
    run = subprocess.Popen(
        [*RUN, "sh", "-c", script], cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True
    )
    pids: list[int] = []
    try:
        for name in ("left", "apart", "front"):  # a dash that starts one just then loses the signal for it
            path = tmp_path / name
            assert until(lambda path=path: path.exists() and path.read_text().endswith("\n"))
            pids.append(int(path.read_text()))
        (os.killpg if group else os.kill)(run.pid, signal.SIGINT)
        assert until(lambda: run.poll() is not None)
        assert run.stderr is not None
        assert run.stderr.read() == b"tracefork-otel: nothing captured: Ctrl-C ended the command\n"
        assert (run.returncode, *map(alive, pids)) == (130, False, True, False)
    finally:
        run.kill()
        run.wait()
        for pid in pids:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("group", [True, False], ids=["sent to the group", "sent to us alone"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_reaches_the_command_once(tmp_path: Path, name: str, group: bool) -> None:
    """A second one is for many a program that it is to end at once, in the middle of what it does to end."""
    number = getattr(signal, name)
    code = f"""
import signal, sys, time
got = []
signal.signal({number:d}, lambda *_: got.append(1))
print("ready", flush=True)
while not got:
    time.sleep(0.01)
time.sleep(1)
print("got", len(got), flush=True)
sys.exit(5)
"""
    # Under nohup, as a CI may be, SIGHUP is ignored: by who is started too.
    run = subprocess.Popen(
        ["env", f"--default-signal={number:d}", *RUN, sys.executable, "-c", code],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert run.stdout is not None
        assert run.stdout.readline() == b"ready\n"
        (os.killpg if group else os.kill)(run.pid, number)
        assert run.communicate(timeout=60) == (b"got 1\n", None)
        assert run.returncode == 5
    finally:
        with contextlib.suppress(OSError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


@pytest.mark.slow
def test_a_second_ctrl_c_leaves_the_start_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It meets the command as it seals: what was exchanged can be replayed all the same."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recording, "reached", interrupt)
    with ModelServer() as server:
        code = f"import httpx2; httpx2.get({server.url + '/raw/sse?events=1'!r})"
        with pytest.raises(KeyboardInterrupt):
            recording.record(tmp_path, [sys.executable, "-c", code])
    with open_store(tmp_path) as opened:
        (run,) = opened.runs()
        assert opened.run(run.run_id).start.command == (sys.executable, "-c", code)


def test_ctrl_c_while_the_recorder_loads_ends_the_agent_without_a_word(tmp_path: Path) -> None:
    """As a signal ends a program that has begun nothing: no traceback of ours is the agent's."""
    package = tmp_path / "tracefork_otel"
    package.mkdir()
    (package / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    path = os.pathsep.join([BOOT, str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-c", "print('began')"],
        env={**os.environ, "PYTHONPATH": path, "TRACEFORK_MODE": "record"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_ctrl_c_is_the_agents_once_the_recorder_is_there(tmp_path: Path) -> None:
    """As in any Python: its KeyboardInterrupt."""
    code = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    environment = {"PYTHONPATH": BOOT, "TRACEFORK_MODE": "record", "TRACEFORK_STORE": str(tmp_path / "store")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, b"True\n")
