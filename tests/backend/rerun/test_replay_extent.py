"""Recordings that end before their agent had: they replay as far as they go, and say why they end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forked import TALK, Desk, at_desk
from tracefork_backend.agents.environment import traced
from tracefork_backend.rerun.importing import import_tape
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.rerun.replaying import replay
from tracefork_backend.store import open_store

from tracefork_otel import Tape, UsageError
from tracefork_otel.errors import TapeError
from tracefork_otel.settings import Settings

ONCE = """
import pathlib, signal, threading, time
def end(number):
    if os.environ["TRACEFORK_MODE"] == "record":
        os.kill(os.getpid(), number)
        time.sleep(9)
def end_within(number):
    def wait():  # until the request stands in the log, which is before it is sent
        logs = pathlib.Path(os.environ["TRACEFORK_STORE"]) / "wal"
        while not any(b"/raw/slow" in path.read_bytes() for path in logs.glob("*.wal")):
            time.sleep(0.02)
        end(number)
    if os.environ["TRACEFORK_MODE"] == "record":
        threading.Thread(target=wait, daemon=True).start()
def slow():
    return httpx2.get(os.environ["AGENT_URL"] + "/raw/slow?ms=3000", timeout=20).text
def streamed():
    with httpx2.stream("GET", os.environ["AGENT_URL"] + "/raw/bytes/90000?pieces=9", timeout=20) as response:
        for _ in response.iter_raw():
            end(signal.SIGINT)
@tracefork_otel.tool
def book(seat):
    end(signal.SIGINT)
    return {"seat": seat}
@tracefork_otel.tool
def find(seat):
    return {"found": seat}
"""


def _slow(*values: object) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk."""
    with at_desk(tmp_path, monkeypatch) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "steps", "why", "more"),
    [
        ("say('a'); end(signal.SIGINT); say('b')", 1, "interrupted (Ctrl-C)", "/v1/messages"),
        _slow("say('a'); end(signal.SIGKILL); say('b'); say('c')", 1, "killed", "/v1/messages"),
        _slow("say('a'); end(signal.SIGTERM); print('done')", 1, "killed", None),
        _slow("say('a'); end_within(signal.SIGINT); slow(); say('b')", 2, "interrupted (Ctrl-C)", None),
        ("say('a'); end_within(signal.SIGKILL); slow(); say('b')", 2, "killed", None),
        ("say('a'); streamed(); say('b')", 2, "interrupted (Ctrl-C)", None),
        _slow("find('1A'); say('a'); book('1A'); say('b')", 1, "interrupted (Ctrl-C)", None),
        ("find('1'); say('a'); end(signal.SIGINT); find('2'); say('b')", 1, "interrupted (Ctrl-C)", "find"),
    ],
)
def test_a_recording_that_was_cut_short(
    desk: Desk, tmp_path: Path, body: str, steps: int, why: str, more: str | None
) -> None:
    """It replays to its end, wherever its agent was; where that is, and why, stands in the receipt."""
    run = desk.recorded(ONCE + body)
    assert run.steps == steps
    result = replay(run)
    assert result.passed, result.receipt
    assert f"the recording ends after step {steps - 1}: " in str(result.ends)
    assert why in str(result.ends)
    assert more is None or more in str(result.ends)
    assert result.receipt[-1] == "PASS    bit-exact, as far as the recording goes"
    assert desk.server.requests == []
    reconstruct(desk.store, run).dump(tmp_path / "t")
    tape = Tape.load(tmp_path / "t")
    assert (tape.cut_short, tape.steps) == ("killed" if why == "killed" else "interrupted", steps)
    assert import_tape(tmp_path / "other", tmp_path / "t").ends is not None
    assert open_store(tmp_path / "other").run("last").status != "ok"


@pytest.mark.slow
def test_a_recording_that_was_cut_short_may_still_differ(desk: Desk) -> None:
    """What was recorded has to come again: another prompt before the end is a drift, as is a call less."""
    run = desk.recorded(ONCE + "say('a'); say('b'); end(signal.SIGINT); say('c')")
    desk.write(ONCE + "say('a'); say('other'); say('c')")
    result = replay(run)
    assert not result.passed
    assert (result.drifts[0].step, result.drifts[0].cause) == (1, "prompt")
    desk.write(ONCE + "say('a')")
    assert [drift.cause for drift in replay(run).drifts] == ["missing"]


@pytest.fixture
def waiting(desk: Desk) -> Iterator[subprocess.Popen[bytes]]:
    """An agent that made two calls, and goes on once there is a file `go`; its third is then its last."""
    desk.write("""
        import pathlib, time
        say('a'); say('b')
        while not pathlib.Path('go').exists():
            time.sleep(0.02)
        say('c')
        """)
    env = traced(os.environ, Settings(store=desk.store_path), launch=("a" * 32, "b" * 16))
    agent = subprocess.Popen([sys.executable, "agent.py"], env=env)
    try:
        deadline = time.monotonic() + 30
        while not (desk.store_path.exists() and desk.store.runs() and len(desk.run().exchanges) == 2):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield agent
    finally:
        agent.kill()
        agent.wait()


@pytest.mark.slow
def test_a_tape_of_a_run_that_goes_on(desk: Desk, tmp_path: Path, waiting: subprocess.Popen[bytes]) -> None:
    """Its part says that it is one, wherever it goes; the whole then brings what came since."""
    part = reconstruct(desk.store, desk.run())
    assert part.cut_short == "running"
    part.dump(tmp_path / "part")
    (tmp_path / "go").touch()
    waiting.wait(30)
    whole = reconstruct(desk.store, desk.run())
    assert (part.steps, whole.steps) == (2, 3)
    whole = replace(whole, cut_short=None)  # nobody saw how the command ended, as `run` would have
    whole.dump(tmp_path / "whole")

    other = tmp_path / "other"
    imported = import_tape(other, tmp_path / "part")
    assert (imported.added, imported.ends) == (2, "the recording ends after step 1: the run still went on")
    assert open_store(other).run("last").status == "part"
    assert reconstruct(open_store(other), open_store(other).run("last")).cut_short == "running"
    assert import_tape(other, tmp_path / "part").already_there

    imported = import_tape(other, tmp_path / "whole")
    assert (imported.added, imported.already_there, imported.ends) == (1, False, None)
    with open_store(other) as store:
        (run,) = store.runs()
        assert (run.status, run.steps) == ("ok", 3)
        assert reconstruct(store, run).digest == whole.digest
    for path in ("whole", "part"):
        assert import_tape(other, tmp_path / path).already_there


@pytest.mark.slow
def test_the_end_of_a_part_comes_alone(desk: Desk, tmp_path: Path) -> None:
    """A run that made no further call after its part was exported is whole once its end is imported."""
    run = desk.recorded("say('a')")
    whole = reconstruct(desk.store, run)
    replace(whole, cut_short="running").dump(tmp_path / "part")
    whole.dump(tmp_path / "whole")
    import_tape(tmp_path / "other", tmp_path / "part")
    imported = import_tape(tmp_path / "other", tmp_path / "whole")
    assert (imported.added, imported.already_there) == (0, False)
    assert open_store(tmp_path / "other").run("last").status == "ok"


@pytest.mark.slow
def test_a_tape_that_differs_from_what_is_there(desk: Desk, tmp_path: Path) -> None:
    """A tape of a run that is there with another answer is refused, by step; nothing of it is taken in."""
    tape = reconstruct(desk.store, desk.recorded("say('a'); say('b')"))
    response = tape.exchanges[1].response
    assert response is not None
    forged = replace(tape.exchanges[1], response=replace(response, status=201))
    replace(tape, exchanges=tape.exchanges[:1], cut_short="running").dump(tmp_path / "part")
    replace(tape, exchanges=(tape.exchanges[0], forged)).dump(tmp_path / "forged")
    other = tmp_path / "other"
    assert import_tape(other, tmp_path / "part").added == 1
    assert import_tape(other, tmp_path / "forged").added == 1  # nothing that is there differs
    tape.dump(tmp_path / "whole")
    with pytest.raises(UsageError, match=r"differs: its step 1 \(POST .*nothing was imported"):
        import_tape(other, tmp_path / "whole")
    assert open_store(other).run("last").steps == 2


CHILD = """
import time
{talk}
time.sleep(0.5)
say('child')
time.sleep({pause})
say('child again')
"""


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.2, _slow(1.0)])
def test_a_child_that_outlives_its_parent(desk: Desk, tmp_path: Path, pause: float) -> None:
    """A replay waits for it as long as it was at work, and says that it was left; so does its tape."""
    (tmp_path / "child.py").write_text(CHILD.format(talk=TALK, pause=pause))
    run = desk.recorded("""
        import subprocess
        say('parent')
        subprocess.Popen([sys.executable, 'child.py'], start_new_session=True)
        """)
    deadline = time.monotonic() + 30
    while not (desk.run().steps == 3 and not list(desk.store_path.glob("wal/*.wal"))):
        assert time.monotonic() < deadline
        time.sleep(0.1)
        _ = desk.store.current()
    tape = reconstruct(desk.store, run := desk.run())
    assert (tape.left_ns is not None, tape.cut_short) == (True, None)
    desk.server.requests.clear()
    result = replay(run)
    assert result.passed, result.receipt
    assert (result.matched, desk.server.requests) == (3, [])
    assert any("still at work when the recording's command ended" in note for note in result.notes)
    tape.dump(tmp_path / "t")
    import_tape(tmp_path / "other", tmp_path / "t")
    with open_store(tmp_path / "other") as store:
        assert reconstruct(store, store.run("last")).left_ns == tape.left_ns
    (tmp_path / "child.py").write_text("")
    drift = replay(run).drifts[0]
    assert (drift.step, drift.cause) == (1, "missing")
    assert "still at work when the recording's command ended" in drift.text


@pytest.mark.slow
@pytest.mark.parametrize("ahead", ["", "say('other'); "])
def test_a_tape_says_why_it_ends_in_its_header(desk: Desk, tmp_path: Path, ahead: str) -> None:
    """A person who reads the file's first line sees it; a word that no version knows is refused by name."""
    tape = replace(reconstruct(desk.store, desk.recorded(f"{ahead}say('a')")), cut_short="killed")
    tape.dump(tmp_path / "t")
    assert '"cut_short":"killed"' in (tmp_path / "t").read_text().splitlines()[0]
    assert Tape.from_bytes(tape.to_bytes()).cut_short == "killed"
    with pytest.raises(TapeError, match="cut_short: 'eaten'"):
        Tape.from_bytes(replace(tape, cut_short="eaten").to_bytes())  # type: ignore[arg-type]
