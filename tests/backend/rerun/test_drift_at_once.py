"""A drift is said when it happens, and an agent that only tries again is not waited for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import tracefork_backend as tf
from forked import Desk, at_desk
from tracefork_backend.rerun import watch
from tracefork_backend.rerun.forking import fork
from tracefork_backend.rerun.records import Records
from tracefork_backend.rerun.replaying import replay
from tracefork_backend.rerun.stage import Stage

from tracefork_otel import AgentFailed
from tracefork_otel.errors import StoreError

AGAIN = """
import pathlib, time

def again(text):
    for _ in range({times}):
        try:
            return say(text)
        except httpx2.ConnectError:
            time.sleep({wait})

say("first")
print(again(pathlib.Path("state.txt").read_text()))
say("last", forget=True)
"""
"""An agent that takes a drift for a fault of the network; what it asks is what the file says."""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose agents are not waited for long."""
    monkeypatch.setattr(watch, "PATIENCE_S", 0.5)
    with at_desk(tmp_path, monkeypatch) as one:
        yield one


def changed(desk: Desk, times: int, wait: float) -> tf.Run:
    """A run whose agent finds another state when it is started again."""
    (desk.folder / "state.txt").write_text("as recorded")
    run = desk.recorded(AGAIN.format(times=times, wait=wait))
    (desk.folder / "state.txt").write_text("as it is")
    return run


@pytest.mark.slow
def test_an_agent_that_tries_again_is_ended(desk: Desk) -> None:
    """The drift is said once; replay and fork end soon after it, with what is known."""
    run = changed(desk, 1000, 2)
    said: list[str] = []
    result = replay(run, on_drift=said.append)
    assert [text == result.drifts[0].text for text in said] == [True]
    assert (result.drifts[0].step, result.missing, result.exit_status) == (1, (1, 2), None)
    assert any(line.startswith("ended ") and "--go-on" in line for line in result.receipt)
    assert "missing steps 1, 2: not asked for so far" in result.receipt
    assert result.receipt[-1] == "FAIL    prompt at step 1"
    problem = fork(run, at=2, edit=tf.text("x")).problem
    assert problem is not None
    assert problem.kind == "drift"


@pytest.mark.slow
def test_an_agent_that_hangs_after_its_drift_is_ended(desk: Desk) -> None:
    """A pool that waits for a worker's error for ever, say."""
    assert not replay(changed(desk, 1, 1000)).passed


@pytest.mark.slow
def test_an_agent_that_goes_on_is_waited_for(desk: Desk) -> None:
    """What is answered from the tape, and `go_on`, let it go on to its end."""
    run = changed(desk, 3, 0.5)
    result = replay(run, go_on=True)
    assert (result.exit_status, result.missing, result.ended_early) == (0, (1,), None)
    assert result.receipt[-1].startswith("FAIL")


@pytest.mark.slow
def test_an_interrupt_says_what_is_known(desk: Desk) -> None:
    """Ctrl-C leaves the receipt as far as it goes; so does a time limit."""
    run = changed(desk, 1000, 2)
    with pytest.raises(KeyboardInterrupt) as stopped:
        replay(run, on_drift=lambda text: os.kill(os.getpid(), signal.SIGINT), go_on=True)
    (note,) = stopped.value.__notes__
    assert note.startswith("1 of 3 exchanges served")
    assert "\ndrift   step 1" in note
    assert "\nended   the replay was interrupted" in note
    failed = ""
    for seconds in (3, 15, 75):  # in the first of them the agent may not have come to its drift
        with pytest.raises(AgentFailed, match=f"did not end within {seconds} s") as ended:
            replay(run, go_on=True, timeout=seconds)
        failed = str(ended.value)
        if "\ndrift   step 1" in failed:
            break
    assert "\ndrift   step 1" in failed


@pytest.mark.slow
@pytest.mark.parametrize("error", [StoreError("half a record"), OSError("gone")])
def test_an_interrupt_stays_one_where_nothing_can_be_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Whatever is half written: it is ended as it was asked to."""
    run = changed(desk, 1000, 2)

    def interrupted(text: str) -> None:
        def fails(stage: Stage, space: object) -> Records:
            raise error

        monkeypatch.setattr(Stage, "records", fails)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as stopped:
        replay(run, on_drift=interrupted, go_on=True)
    assert not hasattr(stopped.value, "__notes__")


BEYOND = """
import os, pathlib, signal, threading, time

say("first")
if not pathlib.Path("state.txt").exists():
    say("last")
    os.kill(os.getpid(), signal.SIGKILL)

def beyond():
    try: say("beyond")
    except httpx2.ConnectError: pass

thread = threading.Thread(target=beyond)
thread.start()
time.sleep(1.5)
say("last")
time.sleep({after})
"""
"""An agent that is killed after two steps; started again, one thread goes beyond them before the other."""


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1000])
def test_the_rest_of_a_recording_that_was_cut_short_is_waited_for(after: int, desk: Desk) -> None:
    """What goes beyond its end ends no agent that is yet to ask for a recorded step; then it does."""
    run = desk.recorded(BEYOND.format(after=after))
    (desk.folder / "state.txt").touch()
    result = replay(run)
    assert (result.missing, result.passed) == ((), True)
