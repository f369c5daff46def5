"""What a replay leaves: a run with a root that a collector sees too, also where its director was killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from collector import collecting
from forked import Desk, alive, at_desk
from tracefork_backend.rerun.edits import noop
from tracefork_backend.rerun.forking import fork
from tracefork_backend.rerun.replaying import replay

FOUR = "print(*[say(word) for word in 'abcd'])"
TRACED = """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

provider = TracerProvider()
if "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ:
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
with trace.get_tracer("mine").start_as_current_span("work"):
    say("a")
"""
DIRECTOR = """
import sys
from tracefork_backend.rerun.replaying import replay
from tracefork_backend.store import open_store
result = replay(open_store("store").run(sys.argv[1]))
print("\\n".join(result.receipt))
sys.exit(not result.passed)
"""
SLEEPER = """
say("a"), say("b")
open(f"pid-{os.getpid()}", "w").close()
import time; time.sleep(300)
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose model answers in capitals."""
    with at_desk(tmp_path, monkeypatch) as made:
        yield made


def directed(desk: Desk, run_id: str) -> subprocess.Popen[str]:
    """A process that replays the run."""
    return subprocess.Popen(
        [sys.executable, "-c", DIRECTOR, run_id], cwd=desk.folder, stdout=subprocess.PIPE, text=True
    )


def killed_replay(desk: Desk) -> str:
    """The run of a replay that was killed after two of its four steps was given back by them."""
    run_id = desk.recorded(FOUR).run_id
    desk.write(SLEEPER)
    director = directed(desk, run_id)
    deadline = time.monotonic() + 60
    while not (found := list(desk.folder.glob("pid-*"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    director.kill()
    director.communicate(timeout=30)
    (pid,) = (int(path.name.removeprefix("pid-")) for path in found)
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)
    desk.write(FOUR)
    return run_id


@pytest.mark.slow
def test_the_root_of_a_replay_reaches_a_collector(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent once, as it stands in the store; no span of the agent's arrives twice, or without it."""
    run = desk.recorded(TRACED)
    with collecting(monkeypatch) as collector:
        result = replay(desk.store.run(run.run_id))
    assert result.passed, result.receipt
    counts = Counter(span.span_id.hex() for _, _, span in collector.received)
    assert set(counts.values()) == {1}
    (root,) = (span for span in collector.spans().values() if not span.parent_span_id)
    (kept,) = desk.store.rows(
        f"SELECT * FROM spans WHERE trace_id = '{result.replay_run_id}' AND parent_span_id IS NULL"
    )
    assert (root.trace_id.hex(), root.span_id.hex()) == (kept["trace_id"], kept["span_id"])
    assert root.name == kept["name"] == "replay work"
    told = json.loads(kept["attributes"])
    assert told["tracefork.replay.passed"] is True
    assert (told["tracefork.run.kind"], told["tracefork.parent.run_id"]) == ("replay", run.run_id)
    (linked,) = root.links
    assert (linked.trace_id.hex(), linked.span_id.hex()) == (run.run_id, desk.store.root_of(run.run_id))
    assert {span.trace_id for span in collector.spans().values()} == {root.trace_id}


@pytest.mark.slow
def test_the_root_of_a_fork_reaches_a_collector(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent once with its outcome, above what its agent sends itself."""
    run = desk.recorded(TRACED)
    with collecting(monkeypatch) as collector:
        made = fork(desk.store.run(run.run_id), at=0, edit=noop(), oracle=lambda graded: True)
    assert made.problem is None, made.problem
    counts = Counter(span.span_id.hex() for _, _, span in collector.received)
    assert set(counts.values()) == {1}
    own = [span for span in collector.spans().values() if span.trace_id.hex() == made.run_id]
    (root,) = (span for span in own if not span.parent_span_id)
    assert root.name == "fork work@0"
    assert {entry.key: entry.value.bool_value for entry in root.attributes}["tracefork.run.outcome"]
    assert {span.name for span in own if span.parent_span_id == root.span_id} == {"work"}
    (note,) = (span for span in collector.spans().values() if span.trace_id.hex() == run.run_id)
    assert note.name == "tracefork.fork noop"


@pytest.mark.slow
def test_a_replay_that_fails_says_so_at_the_collector(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drift is the error of the replay's root, in the words of the receipt."""
    run = desk.recorded(FOUR)
    desk.write("say('a'), say('other')")
    with collecting(monkeypatch) as collector:
        result = replay(run)
    assert not result.passed
    (root,) = (span for span in collector.spans().values() if not span.parent_span_id)
    assert (root.status.code, root.status.message) == (root.status.STATUS_CODE_ERROR, result.receipt[-1])


@pytest.mark.slow
def test_what_a_killed_replay_recorded_is_kept(desk: Desk) -> None:
    """After kill -9 the next replay brings it into the store, as a run that is not complete."""
    run_id = killed_replay(desk)
    assert len(list(desk.store_path.glob(".fork-*"))) == 1
    result = replay(desk.store.run(run_id))
    assert result.passed, result.receipt
    assert not list(desk.store_path.glob(".fork-*"))
    left = {run.status: run for run in desk.store.runs("replay")}
    assert {status: run.steps for status, run in left.items()} == {"killed": 2, "ok": 4}
    assert left["killed"].parent_run_id == run_id
    assert [exchange.replayed for exchange in left["killed"].exchanges] == [True, True]
    assert desk.store.run("last").run_id == run_id


@pytest.mark.slow
def test_two_replays_at_once_adopt_what_was_left_once(desk: Desk) -> None:
    """Both pass, and what the killed one recorded is one run with each step once."""
    run_id = killed_replay(desk)
    directors = [directed(desk, run_id) for _ in range(2)]
    for director in directors:
        told, _ = director.communicate(timeout=90)
        assert director.returncode == 0, told
    assert sorted((run.steps, run.status) for run in desk.store.runs("replay")) == [
        (2, "killed"),
        (4, "ok"),
        (4, "ok"),
    ]
    assert not list(desk.store_path.glob(".fork-*"))
    assert desk.store.problems == ()


@pytest.mark.slow
def test_what_replays_of_older_versions_left(desk: Desk) -> None:
    """Their folders bear another name and no lock: a day old they are taken over, younger ones let be."""
    run = desk.recorded(FOUR)
    for age, name in ((0, ".replay-young"), (2 * 24 * 3600, ".replay-old")):
        folder = desk.store_path / name
        env = {**os.environ, "TRACEFORK_STORE": str(folder / "store"), "TRACEFORK_SEAL": "0"}
        start = "from tracefork_otel import TraceforkInstrumentor as T; T().instrument(http_spans=False); "
        subprocess.run([sys.executable, "-c", f"{start}import agent"], env=env, check=True)
        os.utime(folder, (time.time() - age,) * 2)
    before = len(desk.store.runs())
    assert replay(desk.store.run(run.run_id)).passed
    assert [path.name for path in desk.store_path.glob(".replay-*")] == [".replay-young"]
    assert len(desk.store.runs()) == before + 2
