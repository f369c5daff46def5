"""Commands recorded by `run` and started again on their tape, in own processes, with no server left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forked import Desk
from tracefork_backend.agents.environment import traced
from tracefork_backend.agents.recording import record
from tracefork_backend.rerun.importing import import_tape
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.rerun.replaying import replay
from tracefork_backend.simulate import ModelServer
from tracefork_backend.store import open_store

from tracefork_otel import AgentFailed, Tape, TapeError, TruncatedBody, UsageError
from tracefork_otel.settings import Settings
from tracefork_otel.tape.file import encode

EXAMPLES = Path(__file__).parents[3] / "examples"


class EchoDesk(Desk):
    """A desk whose agents ask what answers with their own request, so that any byte is seen."""

    talk = textwrap.dedent("""
        import os, sys, httpx2
        assert os.environ["AGENT_API_KEY"]
        url = os.environ["AGENT_URL"] + "/raw/echo"
        def say(text):
            return httpx2.post(url, json={"messages": [{"role": "user", "content": text}]}).text
    """)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose agents find the server and a key in their environment, until `leave` takes both away."""
    with ModelServer(seed=7) as server:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("AGENT_URL", server.url)
        monkeypatch.setenv("AGENT_API_KEY", "secret-key-value")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "desk")
        yield EchoDesk(tmp_path, server)


@pytest.fixture
def leave(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """Ends the server and forgets the environment: a replay has only what was recorded."""

    def leave() -> None:
        desk.server.close()
        monkeypatch.delenv("AGENT_URL")
        monkeypatch.delenv("AGENT_API_KEY")

    return leave


@pytest.mark.slow
def test_a_command_is_recorded_and_replayed(desk: Desk, leave: Callable[[], None], tmp_path: Path) -> None:
    """The command starts again as recorded, gets every byte from the tape, and ends as it did."""
    desk.write("print(say('a'), say('b'))\nsys.exit(4)")
    recorded = desk.record()
    assert (recorded.exit_status, recorded.problems) == (4, ())
    (made,) = recorded.runs
    assert (made.run_id, made.steps) == (recorded.launch_id, 2)
    run = desk.run()
    assert (run.name, run.service, run.kind) == ("agent.py", "desk", "record")
    start = run.start
    assert (start.command, start.cwd, start.exit_status) == ((sys.executable, "agent.py"), str(tmp_path), 4)
    assert "AGENT_API_KEY" in start.withheld
    assert "secret-key-value" not in json.dumps(dict(start.environment))
    leave()
    result = replay(run)
    assert result.passed, result.receipt
    assert (result.matched, result.exit_status, result.expected_exit_status) == (2, 4, 4)
    again = run.store.run(result.replay_run_id)
    assert (again.kind, again.parent_run_id, again.status) == ("replay", run.run_id, "error")
    assert desk.store.run("last").run_id == run.run_id


@pytest.mark.slow
def test_a_tape_file_goes_anywhere(
    desk: Desk, leave: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tape replays without a store, from another checkout, and after an import into another store."""
    desk.write("print(say('a'), say('b'))")
    desk.record()
    tape = reconstruct(desk.store, desk.run())
    path = tmp_path / "run.tape.jsonl"
    tape.dump(path)
    assert "secret-key-value" not in path.read_text()
    leave()
    result = replay(Tape.load(path))
    assert (result.passed, result.kept) == (True, False), result.receipt
    import_tape(tmp_path / "other", path)
    imported = open_store(tmp_path / "other").run(tape.run_id)
    assert reconstruct(imported.store, imported).digest == tape.digest
    assert replay(imported).passed
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    monkeypatch.chdir(checkout)
    (checkout / "agent.py").write_text((tmp_path / "agent.py").read_text().replace("'b'", "'changed'"))
    (drift,) = replay(Tape.load(path), trust=True).drifts
    assert (drift.step, drift.cause, drift.recorded, drift.got) == (1, "prompt", "b", "changed")


@pytest.mark.slow
def test_a_tampered_tape_is_refused(desk: Desk, tmp_path: Path) -> None:
    """A tape with one other byte does not replay; one that is forged whole shows another digest."""
    desk.write("say('apples')")
    desk.record()
    tape = reconstruct(desk.store, desk.run())
    data = encode(tape)
    (tmp_path / "t").write_bytes(data.replace(b"apples", b"apricot"))
    with pytest.raises(TapeError, match="line"):
        Tape.load(tmp_path / "t")
    request = replace(tape.exchanges[0].request, body=b"apricots")
    forged = Tape.from_bytes(encode(replace(tape, exchanges=(replace(tape.exchanges[0], request=request),))))
    assert forged.digest != tape.digest
    assert replay(forged, trust=True).tape_digest == forged.digest


@pytest.mark.slow
def test_a_damaged_run_is_refused(desk: Desk) -> None:
    """A run whose stored bytes changed is not replayed; the step and the reason are named."""
    desk.write("say('apples')")
    desk.record()
    (chunks,) = [
        path for path in desk.store_path.glob("segments/*.chunks.parquet") if pq.read_metadata(path).num_rows
    ]
    table = pq.read_table(chunks)
    texts = [text and text.replace("apples", "aXples") for text in table.column("text").to_pylist()]
    position = table.schema.get_field_index("text")
    table = table.set_column(
        position, table.schema.field("text"), pa.array(texts, table.schema.field("text").type)
    )
    pq.write_table(table, chunks)
    run = desk.run()
    with pytest.raises(TruncatedBody, match=r"step 0 .*raw/echo"):
        reconstruct(desk.store, run)


@pytest.mark.slow
def test_a_crash_that_was_recorded_is_no_drift(desk: Desk, leave: Callable[[], None]) -> None:
    """An agent that failed when recorded, and fails in the same way again, replays exactly."""
    desk.write("say('a')\nraise RuntimeError('as ever')")
    assert desk.record().exit_status == 1
    leave()
    assert replay(desk.run()).passed


@pytest.mark.slow
def test_a_new_crash_is_an_agent_error(desk: Desk, leave: Callable[[], None]) -> None:
    """A crash that the recording has not is told in the agent's words, with the step that did not come."""
    desk.write("say('a')\nsay('b')")
    desk.record()
    leave()
    desk.write("say('a')\nraise RuntimeError('all new')")
    result = replay(desk.run())
    (drift,) = result.drifts
    assert (drift.cause, drift.step) == ("agent_error", 1)
    assert "RuntimeError: all new" in drift.text
    assert (result.exit_status, result.expected_exit_status) == (1, 0)


@pytest.mark.slow
def test_an_agent_that_does_not_start(desk: Desk, leave: Callable[[], None]) -> None:
    """A script that breaks before its first request, or is gone, is an AgentFailed, its error shown once."""
    desk.write("say('a')")
    desk.record()
    leave()
    desk.write("import no_such_module_here")
    with pytest.raises(AgentFailed) as failed:
        replay(desk.run())
    assert str(failed.value).count("No module named 'no_such_module_here'") == 1
    (desk.folder / "agent.py").unlink()
    with pytest.raises(AgentFailed, match="No such file"):
        replay(desk.run())


@pytest.mark.slow
def test_an_agent_that_hangs(desk: Desk, leave: Callable[[], None]) -> None:
    """An agent that does not end is ended at the time limit, and nothing of it is left."""
    desk.write("say('a')")
    desk.record()
    leave()
    desk.write("import time\nprint('stuck', os.getpid(), file=sys.stderr, flush=True)\ntime.sleep(300)")
    with pytest.raises(AgentFailed, match=r"did not end within 8 s") as failed:
        replay(desk.run(), timeout=8)
    pid = int(str(failed.value).rpartition("stuck ")[2].split()[0])
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["no_such_module:fn", "agent:nope"])
def test_an_agent_function_that_is_none(desk: Desk, agent: str) -> None:
    """A function that cannot be imported is the agent's failure, which names it."""
    desk.write("if __name__ == '__main__': say('a')")
    desk.record()
    with pytest.raises(AgentFailed, match=f"{agent} cannot be imported"):
        replay(desk.run(), agent=agent)


@pytest.mark.slow
def test_an_entrypoint_is_called_again(desk: Desk, leave: Callable[[], None]) -> None:
    """A run of one decorated call, recorded by the one line, is replayed as that call with its arguments."""
    desk.write(
        """
        from tracefork_otel import TraceforkInstrumentor, agent
        @agent
        def plan(city, *, days):
            return {"said": say(f"{days} days in {city}")}
        if __name__ == "__main__":
            TraceforkInstrumentor().instrument()
            plan("Tōkyō", days=2)
            say("something else, in another run")
        """
    )
    subprocess.run(
        [sys.executable, "agent.py"], env={**os.environ, "TRACEFORK_STORE": str(desk.store_path)}, check=True
    )
    leave()
    run = next(run for run in desk.store.runs() if run.entrypoint)
    assert (run.entrypoint, run.steps) == ("agent:plan", 1)
    result = replay(run)
    assert result.passed, result.receipt
    assert json.loads(str(result.result)) == {"said": run.exchanges[0].response.body.decode()}  # type: ignore[union-attr]
    assert replay(run, agent="agent:plan").passed


@pytest.mark.slow
def test_nothing_says_how_to_start(desk: Desk) -> None:
    """A tape without a start asks for the agent's function."""
    desk.write("say('a')")
    desk.record()
    tape = reconstruct(desk.store, desk.run())
    with pytest.raises(UsageError, match="--agent"):
        replay(Tape(run_id=tape.run_id, exchanges=tape.exchanges))


@pytest.mark.slow
def test_a_connection_round_the_seam_fails(desk: Desk) -> None:
    """A live connection in a replay is named with its caller and fails it; an allowed host does not."""
    desk.write(
        """
        import urllib.request
        say("a")
        urllib.request.urlopen(os.environ["AGENT_URL"] + "/raw/empty").read()
        """
    )
    desk.record()
    result = replay(desk.run())
    assert not result.passed
    assert [(leak.host, leak.port) for leak in result.leaks] == [("127.0.0.1", desk.server.port)]
    assert "agent.py" in result.leaks[0].caller
    assert any("--allow-host 127.0.0.1" in line for line in result.receipt)
    assert replay(desk.run(), allow_hosts=["127.0.0.1"]).passed


@pytest.mark.slow
def test_redacted_parameters_match_again(
    desk: Desk, leave: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL parameter that the user had redacted is so in the replay too; another value must be left out."""
    monkeypatch.setenv("TRACEFORK_REDACT_PARAMS", "visitor")
    desk.write("import uuid\nhttpx2.get(url, params={'visitor': str(uuid.uuid4()), 'page': '1'})")
    desk.record()
    monkeypatch.delenv("TRACEFORK_REDACT_PARAMS")
    run = desk.run()
    assert run.exchanges[0].request.url.endswith("?visitor=REDACTED&page=1")
    leave()
    assert "--ignore 'url visitor'" in replay(run).drifts[0].text
    result = replay(run, ignore=["url visitor"])
    assert result.passed, result.receipt


@pytest.mark.slow
def test_processes_share_one_tape(desk: Desk, leave: Callable[[], None]) -> None:
    """Children that send equal requests at once each get an answer of their own, and all is one run."""
    desk.write(
        """
        import subprocess
        if len(sys.argv) > 1:
            print(say("the same"))
        else:
            children = [subprocess.Popen([sys.executable, __file__, "child"]) for _ in range(3)]
            assert [child.wait() for child in children] == [0, 0, 0]
            say("done")
        """
    )
    recorded = desk.record()
    assert [run.steps for run in recorded.runs] == [4]
    leave()
    result = replay(desk.run())
    assert (result.passed, result.matched) == (True, 4), result.receipt


@pytest.mark.slow
def test_a_command_with_several_traces_is_one_tape(desk: Desk, leave: Callable[[], None]) -> None:
    """A command whose work comes from outside has a run for each piece; a replay of one repeats them all."""
    desk.write(
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
        for name in ("first", "second"):
            with trace.get_tracer("t").start_as_current_span(name, kind=trace.SpanKind.CONSUMER):
                say(name)
        """
    )
    recorded = desk.record()
    assert [run.steps for run in recorded.runs] == [1, 1]
    leave()
    for run_id in (run.run_id for run in recorded.runs):
        run = desk.store.run(run_id)
        tape = reconstruct(desk.store, run)
        assert (tape.steps, tape.exchanges[0].trace_id) == (2, run_id)
        result = replay(run)
        assert (result.passed, result.matched) == (True, 2), result.receipt


@pytest.mark.slow
def test_a_script_with_several_traces_is_one_tape(desk: Desk, leave: Callable[[], None]) -> None:
    """A script with the one line and three runs is repeated whole, but not by an agent that is named."""
    desk.write(
        """
        from tracefork_otel import TraceforkInstrumentor
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
        TraceforkInstrumentor().instrument()
        def work(name):
            with trace.get_tracer("t").start_as_current_span(name, kind=trace.SpanKind.CONSUMER):
                say(name)
                say(name + " again")
        if __name__ == "__main__":
            for name in ("first", "second", "third"):
                work(name)
        """
    )
    for _ in range(2):  # of two processes, each replay repeats its own
        subprocess.run(
            [sys.executable, "agent.py"],
            env={**os.environ, "TRACEFORK_STORE": str(desk.store_path)},
            check=True,
        )
    leave()
    *_, middle, _ = desk.store.runs()[:3]
    assert (middle.name, middle.steps, middle.launch_id) == ("second", 2, None)
    result = replay(middle)
    assert (result.passed, result.matched) == (True, 6), result.receipt
    assert [exchange.trace_id for exchange in reconstruct(desk.store, middle).exchanges] == [
        middle.run_id
    ] * 2
    desk.write("def again(): say('second'), say('second again')", name="alone.py")
    alone = replay(middle, agent="alone:again")
    assert (alone.passed, alone.matched) == (True, 2), alone.receipt


@pytest.mark.slow
def test_an_agent_that_was_killed(desk: Desk, leave: Callable[[], None]) -> None:
    """An agent killed in mid-request leaves its finished steps and the open one, and replays up to there."""
    desk.write(
        """
        import threading, time
        say("a")
        threading.Timer(0.3, lambda: os.kill(os.getpid(), 9)).start()
        httpx2.get(os.environ["AGENT_URL"] + "/raw/slow?ms=20000", timeout=30)
        """
    )
    assert desk.record().exit_status == 137
    run = desk.run()
    assert [exchange.outcome for exchange in run.exchanges] == ["complete", "in_flight"]
    leave()
    result = replay(run)
    assert (result.passed, result.matched) == (True, 2), result.receipt


@pytest.mark.slow
def test_a_run_that_still_goes_on(desk: Desk) -> None:
    """A run with an open request is not made into a tape before it ended."""
    desk.write("httpx2.get(os.environ['AGENT_URL'] + '/raw/slow?ms=60000', timeout=90)")
    env = traced(os.environ, Settings(store=desk.store_path), launch=("a" * 32, "b" * 16))
    agent = subprocess.Popen([sys.executable, "agent.py"], env=env)
    try:
        deadline = time.monotonic() + 30
        while not (desk.store_path.exists() and desk.store.runs()) and time.monotonic() < deadline:
            time.sleep(0.1)
        with pytest.raises(UsageError, match="still goes on"):
            reconstruct(desk.store, desk.run())
    finally:
        agent.kill()
        agent.wait()


@pytest.mark.parametrize(
    ("argv", "status", "says"),
    [
        ([sys.executable, "-I", "-c", "pass"], 3, "-I keeps Python from reading PYTHONPATH"),
        ([sys._base_executable, "-c", "pass"], 3, "has no tracefork-otel"),  # type: ignore[attr-defined]
        (["/bin/true"], 3, "no Python process was reached from '/bin/true'"),
        (["/bin/false"], 1, "no Python process was reached from '/bin/false'"),
        ([sys.executable, "-c", "pass"], 3, "made no request through httpx, httpx2, urllib3 or aiohttp"),
    ],
)
def test_nothing_captured(desk: Desk, argv: list[str], status: int, says: str) -> None:
    """A command that leaves nothing says why; what could not be recorded at all is not taken for success."""
    recorded = desk.record(*argv)
    assert (recorded.exit_status, recorded.runs) == (status, ())
    (problem,) = recorded.problems
    assert says in problem


def test_a_store_that_cannot_be_written(desk: Desk) -> None:
    """The agent runs to its end all the same, and the store is named."""
    desk.write("print(say('a'))")
    (desk.folder / "file").touch()
    recorded = record(desk.folder / "file" / "store", [sys.executable, "agent.py"])
    assert recorded.exit_status == 3
    assert any("file" in problem for problem in recorded.problems)
    assert len(desk.server.requests) == 1


def test_a_command_that_is_none(desk: Desk) -> None:
    """A command that does not exist is the caller's error."""
    with pytest.raises(UsageError, match="no-such-program"):
        desk.record("no-such-program")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "group", "status"), [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143)]
)
def test_signals_reach_the_recorded_command(desk: Desk, number: int, group: bool, status: int) -> None:
    """Ctrl-C and SIGTERM end the command as they would without us, and its run is whole."""
    desk.write("say('a')\nprint('ready', flush=True)\nimport time\ntime.sleep(60)")
    code = (
        "import sys; from tracefork_backend.agents.recording import record\n"
        f"sys.exit(record({str(desk.store_path)!r}, [sys.executable, 'agent.py']).exit_status)"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert running.stdout is not None
    with running.stdout:
        assert running.stdout.readline() == b"ready\n"
        (os.killpg if group else os.kill)(running.pid, number)
        assert running.wait(30) == status
    run = desk.run()
    assert (run.start.exit_status, run.steps, run.status) == (status, 1, "error")


@pytest.mark.slow
def test_a_fan_out_of_the_real_sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The asynchronous example, recorded against a server in its own process, replays without it."""
    monkeypatch.chdir(tmp_path)
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    recorded = record(tmp_path / "store", [sys.executable, str(EXAMPLES / "research_fanout.py")])
    assert (recorded.exit_status, recorded.problems) == (0, ())
    result = replay(open_store(tmp_path / "store").run("last"))
    assert result.passed, result.receipt
    assert result.matched >= 6
