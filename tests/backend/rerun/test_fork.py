"""Commands forked in processes of their own: three phases, each accounted for, and nothing left unsaid."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import Desk, alive, at_desk
from tracefork_backend.grading.graded import graded_run
from tracefork_backend.grading.oracle import grade
from tracefork_backend.grading.regex import regex
from tracefork_backend.rerun.edits import Edit, fault, noop, request, resample, response, text
from tracefork_backend.rerun.forker import Fork, Forker, Planned
from tracefork_backend.rerun.forking import fork
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.rerun.replaying import replay
from tracefork_backend.store import Run, open_store

from tracefork_otel import AgentFailed, Drift, StoreError, Tape, UsageError
from tracefork_otel.tape.digest import digest_of

FOUR = "print(*[say(word) for word in 'abcd'])"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose model answers in capitals."""
    with at_desk(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture(scope="module")
def recorded_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Desk, str]]:
    """A desk on which four questions were recorded, for tests that leave its agent as it is."""
    with pytest.MonkeyPatch.context() as patch, at_desk(tmp_path_factory.mktemp("four"), patch) as made:
        yield made, made.recorded(FOUR).run_id


@pytest.fixture
def four(recorded_once: tuple[Desk, str]) -> tuple[Desk, Run]:
    """That desk, nothing asked of its server yet, and its run."""
    made, run_id = recorded_once
    made.server.requests.clear()
    return made, made.store.run(run_id)


def spans_of(desk: Desk, where: str) -> list[dict[str, Any]]:
    """The spans that meet a condition, attributes and links parsed."""
    rows = desk.store.rows(f"SELECT * FROM spans WHERE {where} ORDER BY started_at, span_id")
    return [{**row, **{key: json.loads(row[key]) for key in ("attributes", "links")}} for row in rows]


@pytest.mark.slow
def test_a_command_forked_by_a_text(four: tuple[Desk, Run]) -> None:
    """The prefix comes from the tape, the text is the answer, the rest is asked of the model anew."""
    desk, run = four
    made = fork(run, at=1, edit=text("other"))
    assert made.problem is None, made.problem
    assert made.stdout == "A other C D\n"
    assert desk.asked() == ["c", "d"]
    assert (made.calls_replayed, made.calls_live, made.calls_memo) == (1, 2, 0)
    assert (made.steps, made.forked_at, made.reconverged_at, made.exit_status) == (4, 1, None, 0)
    assert made.cost_usd
    kept = open_store(desk.store_path).run(made.run_id)
    assert made.cost_usd == pytest.approx(kept.cost_usd)
    assert (kept.kind, kept.parent_run_id, kept.fork_step, kept.status) == ("fork", run.run_id, 1, "ok")
    assert [one.intervention for one in kept.exchanges] == [None, "text", None, None]
    assert [one.replayed for one in kept.exchanges] == [True, True, False, False]
    assert (made.output, made.last_text, made.run.run_id) == ("A other C D\n", "D", made.run_id)
    (row,) = desk.store.rows("SELECT * FROM forks WHERE run_id = $id", {"id": made.run_id})
    assert row["cost_usd"] == pytest.approx(made.cost_usd)
    told = ("run_id", "parent_run_id", "step", "intervention", "tail", "reconverged_at", "calls_replayed")
    assert {name: row[name] for name in told} == {name: getattr(made, name) for name in told}
    assert (row["calls_live"], row["calls_memo"], row["outcome"]) == (2, 0, None)
    assert not list(desk.store_path.glob(".fork-*"))


@pytest.mark.slow
def test_an_oracle_that_flips_by_chance_is_named(
    four: tuple[Desk, Run], caplog: pytest.LogCaptureFixture
) -> None:
    """Once, where forks that put out the same were graded both ways; of a steady one nothing is said."""
    _, run = four
    fork(run, at=1, edit=text("other"), times=3, tail="offline", oracle=lambda graded: "other" in graded.text)
    assert caplog.messages == []
    answers = iter([True, None, False, True])
    made = fork(run, at=3, edit=text("other"), times=4, oracle=lambda graded: next(answers))
    assert [one.outcome for one in made] == [True, None, False, True]
    (said,) = caplog.messages
    assert "graded two forks differently that put out the same" in said


@pytest.mark.slow
@pytest.mark.parametrize("tail", ["live", "recorded", "offline"])
def test_a_noop_equals_its_parent(four: tuple[Desk, Run], tail: Any) -> None:
    """With nothing changed the fork asks and gets what its parent did, byte for byte, and is back at once."""
    desk, run = four
    made = fork(run, at=1, edit=noop(), tail=tail)
    assert made.problem is None, made.problem
    assert made.reconverged_at == 2
    calls = (made.calls_replayed, made.calls_live, made.calls_memo)
    assert calls == ((2, 2, 0) if tail == "live" else (2, 0, 2))
    again = made.run.exchanges
    assert [one.request.body for one in again] == [one.request.body for one in run.exchanges]
    if tail != "live":
        assert digest_of(again) == reconstruct(desk.store, run).digest
        assert desk.asked() == []
        assert made.cost_usd == 0


@pytest.mark.slow
def test_a_tail_that_meets_the_parent_again(desk: Desk) -> None:
    """A recorded tail uses the parent's answer where the same is asked, and the network where not."""
    body = """
        first = say("a", forget=True)
        second = say(first, forget=True)
        third = say("always", forget=True)
        print(first, second, third)
    """
    run = desk.recorded(body)
    live = fork(run, at=0, edit=text("new"))
    assert (live.stdout, live.reconverged_at, live.calls_live) == ("new NEW ALWAYS\n", 2, 2)
    desk.server.requests.clear()
    recorded = fork(run, at=0, edit=text("new"), tail="recorded")
    assert (recorded.stdout, recorded.reconverged_at) == ("new NEW ALWAYS\n", 2)
    assert (recorded.calls_live, recorded.calls_memo) == (1, 1)
    assert desk.asked() == ["new"]
    offline = fork(run, at=0, edit=text("new"), tail="offline")
    assert offline.problem is not None
    assert offline.problem.kind == "offline"
    assert "tail live or recorded" in offline.problem.text
    assert desk.asked() == ["new"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "asked"),
    [
        (request(set={"messages[2].content": "x"}), ["x", "c", "d"]),
        (request(model="claude-opus-4-5", system="Be brief."), ["b", "c", "d"]),
        (resample(), ["b", "c", "d"]),
    ],
)
def test_an_edited_request_goes_live(four: tuple[Desk, Run], edit: Edit, asked: list[str]) -> None:
    """The forked request goes to the model as edited, and is recorded as it went."""
    desk, run = four
    made = fork(run, at=1, edit=edit)
    assert made.problem is None, made.problem
    assert desk.asked() == asked
    assert (made.calls_replayed, made.calls_live) == (1, 3)
    sent = json.loads(made.run.exchanges[1].request.body)
    assert sent == desk.server.requests[0].json()
    assert sent.get("system") == ("Be brief." if getattr(edit, "system", None) else None)
    assert made.run.exchanges[1].intervention == edit.label


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["429", "500", "529", "timeout", "disconnect"])
def test_a_fault_that_the_agent_does_not_survive(four: tuple[Desk, Run], kind: str) -> None:
    """An agent that crashes on a fault is told as crashed, with its own error, and can be graded as that."""
    desk, run = four
    made = fork(run, at=2, edit=fault(kind), oracle=lambda graded: graded.exit_status == 0)
    assert made.problem is not None
    assert (made.problem.kind, made.exit_status, made.outcome) == ("crash", 1, False)
    words = {"timeout": "ReadTimeout", "disconnect": "RemoteProtocolError"}.get(kind, kind)
    assert words in made.problem.text
    assert (made.forked_at, made.calls_live, desk.asked()) == (2, 0, [])
    with pytest.raises(AgentFailed, match="status 1"):
        made.raise_for_problem()
    (row,) = desk.store.rows("SELECT outcome FROM forks WHERE run_id = $id", {"id": made.run_id})
    assert row["outcome"] is False
    (root,) = spans_of(desk, f"parent_span_id IS NULL AND trace_id = '{made.run_id}'")
    assert (root["status"], root["attributes"]["tracefork.fork.problem"]) == ("ERROR", "crash")


@pytest.mark.slow
def test_a_prefix_that_drifts_stops_the_fork(desk: Desk) -> None:
    """What differs is told as a replay tells it; nothing is changed and nothing goes live, even swallowed."""
    run = desk.recorded("for word in 'abc':\n    print(say(word, forget=True))")
    desk.write("""
        for word in "aXbc":
            try: say(word, forget=True)
            except Exception: pass
    """)
    made = fork(run, at=1, edit=resample())
    assert made.drift is not None
    assert made.problem is not None
    assert (made.problem.kind, made.drift.step, made.drift.path) == ("drift", 1, "messages[0].content")
    assert (made.drift.recorded, made.drift.got, made.drift.cause) == ("b", "X", "prompt")
    assert (made.forked_at, made.calls_live, desk.asked()) == (None, 0, [])
    with pytest.raises(Drift, match="got X"):
        made.raise_for_problem()


@pytest.mark.slow
def test_what_the_prefix_may_ignore(desk: Desk) -> None:
    """A path that is left out of the comparison does not stop a fork."""
    run = desk.recorded("import time\nprint(say('a'), say(f'b {time.time()}'), say('c'))")
    drifted = fork(run, at=2, edit=text("x"))
    assert drifted.drift is not None
    assert (drifted.drift.step, drifted.drift.cause) == (1, "clock")
    made = fork(run, at=2, edit=text("x"), ignore=["messages[2].content"])
    assert made.problem is None, made.problem
    assert made.stdout.endswith(" x\n")


@pytest.mark.slow
def test_an_agent_that_ends_before_the_step(desk: Desk) -> None:
    """That nothing was changed is a problem, even though the agent ended well."""
    run = desk.recorded(FOUR)
    desk.write("print(say('a'))")
    made = fork(run, at=2, edit=text("x"), oracle=lambda graded: True)
    assert made.problem is not None
    assert (made.problem.kind, made.outcome, made.exit_status) == ("not_reached", None, 0)
    assert "before step 2, after 1 call, with status 0: nothing was changed" in made.problem.text
    (row,) = desk.store.rows("SELECT outcome, calls_replayed FROM forks")
    assert row == {"outcome": None, "calls_replayed": 1}


@pytest.mark.slow
def test_an_agent_that_cannot_start(desk: Desk) -> None:
    """A script that breaks at once, a command that is gone and a function that is none are told as such."""
    run = desk.recorded(FOUR)
    (desk.folder / "agent.py").write_text("import no_such_module_here")
    made = fork(run, at=0, edit=noop())
    assert made.problem is not None
    assert "No module named 'no_such_module_here'" in made.problem.text
    assert made.problem.kind == "not_reached"
    made = fork(run, at=0, edit=noop(), agent="agent_that_is_none:fn")
    assert made.problem is not None
    assert made.problem.kind == "not_started"
    assert made.problem.text.startswith("the agent agent_that_is_none:fn cannot be imported")
    (desk.folder / "agent.py").write_text("import os; os.execv('/bin/true', ['true'])")
    assert getattr(fork(run, at=0, edit=noop()).problem, "kind", None) == "not_reached"
    run = desk.recorded(FOUR)
    (desk.folder / "agent.py").unlink()
    made = fork(run, at=0, edit=noop())
    assert made.problem is not None
    assert "No such file" in made.problem.text


@pytest.mark.slow
def test_an_agent_that_hangs(desk: Desk) -> None:
    """It is ended at the time limit with all that it started; the text says where it was."""
    run = desk.recorded(FOUR)
    desk.write("""
        import subprocess, time
        say("a"), say("b")
        child = subprocess.Popen(["sleep", "300"], start_new_session=True)
        print(os.getpid(), child.pid, flush=True)
        time.sleep(300)
    """)
    made = fork(run, at=1, edit=text("x"), timeout=8, oracle=lambda graded: True)
    assert made.problem is not None
    assert (made.problem.kind, made.outcome) == ("timeout", None)
    assert "did not end within 8 s and was ended after 2 calls" in made.problem.text
    pids = [int(word) for word in made.stdout.split()]
    assert len(pids) == 2
    assert not any(map(alive, pids))


@pytest.mark.slow
def test_no_network(desk: Desk) -> None:
    """A live call that nobody answers is a problem even if the agent swallows the error."""
    body = """
        def ask(word):
            try: return say(word)
            except Exception as error: return "swallowed"
        print(ask("a"), ask("b"), ask("c"))
    """
    run = desk.recorded(body)
    port = int(desk.server.url.rpartition(":")[2])
    desk.server.close()
    # Held without listening, or another test's server may come to have this port.
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", port))
    made = fork(run, at=0, edit=text("x"), oracle=lambda graded: True)
    assert made.problem is not None
    assert (made.problem.kind, made.outcome, made.exit_status) == ("live_call", None, 0)
    assert "got no answer (httpx2.ConnectError" in made.problem.text
    assert made.stdout == "x swallowed swallowed\n"
    assert getattr(fork(run, at=0, edit=resample()).problem, "kind", None) == "live_call"
    held.close()


@pytest.mark.slow
def test_a_refused_key_names_the_variable(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The caller's own key is used; without one a dummy serves the prefix, and a refusal says what to set."""
    run = desk.recorded(FOUR)
    monkeypatch.setenv("AGENT_API_KEY", "another-key")
    assert fork(run, at=1, edit=text("x")).problem is None
    assert {request.header("x-api-key") for request in desk.server.requests} == {"another-key"}
    monkeypatch.delenv("AGENT_API_KEY")
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(401)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    desk.server.close()
    with HTTPServer(("127.0.0.1", desk.server.port), Refusing) as refusing:
        thread = threading.Thread(target=refusing.serve_forever)
        thread.start()
        try:
            made = fork(run, at=1, edit=text("x"))
        finally:
            refusing.shutdown()
            thread.join()
    assert made.problem is not None
    assert made.problem.kind == "live_call"
    assert "status 401: set AGENT_API_KEY in this environment" in made.problem.text


@pytest.mark.parametrize(
    ("status", "header"), [(404, "Mcp-Session-Id"), (400, "mcp-session-id"), (404, None)]
)
def test_a_session_that_the_server_has_ended_is_told(desk: Desk, status: int, header: str | None) -> None:
    """Of MCP over HTTP; any other request may be meant to be answered so."""
    headers = {header: "recorded"} if header else {}
    body = f"""
        said = say("a")
        url = os.environ["AGENT_URL"] + "/raw/status/{status}"
        answer = httpx2.post(url, headers={headers!r}, json={{"method": "tools/call", "city": said}})
        print(answer.status_code)
    """
    run = desk.recorded(body)
    problem = fork(run, at=0, edit=text("x"), oracle=lambda graded: True).problem
    assert (problem is not None) == (header is not None)
    if problem is not None:
        assert problem.kind == "live_call"
        assert "the MCP session in which it is began in the recording" in problem.text


@pytest.mark.slow
def test_another_exit_status(desk: Desk) -> None:
    """A status that is neither 0 nor the parent's is told, and graded; a signal is a crash."""
    body = """
        said = say("a")
        if said == "die": os.kill(os.getpid(), 9)
        sys.exit(0 if said == "fine" else 3)
    """
    run = desk.recorded(body)
    assert run.start.exit_status == 3
    assert fork(run, at=0, edit=noop()).problem is None
    assert fork(run, at=0, edit=text("fine")).problem is None
    killed = fork(run, at=0, edit=text("die"))
    assert (getattr(killed.problem, "kind", None), killed.exit_status) == ("crash", 137)
    run = desk.recorded("sys.exit(0 if say('a') == 'A' else 4)")
    made = fork(run, at=0, edit=text("x"), oracle=lambda graded: graded.exit_status == 0)
    assert made.problem is not None
    assert (made.problem.kind, made.outcome) == ("exit_status", False)
    assert "ended with status 4, recorded 0" in made.problem.text


@pytest.mark.slow
def test_output_is_kept_and_bounded(desk: Desk) -> None:
    """Both streams are kept apart, their beginning and end, however much there is."""
    run = desk.recorded("say('a')\nprint('o' * 400_000)\nprint('e', file=sys.stderr)")
    made = fork(run, at=0, edit=noop())
    assert 100_000 < len(made.stdout) < 200_000
    assert "bytes left out" in made.stdout
    assert made.stderr.strip() == "e"


@pytest.mark.parametrize(
    ("kind", "leaky"),
    [
        pytest.param("urllib", "import urllib.request\nurllib.request.urlopen(URL)", marks=pytest.mark.slow),
        pytest.param(
            "aiohttp",
            """
import aiohttp, asyncio
async def get():
    async with aiohttp.ClientSession() as session:
        try: await session.ws_connect(URL)
        except aiohttp.WSServerHandshakeError: pass
asyncio.run(get())
""",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "child",
            """
import subprocess
subprocess.run([sys.executable, "-c", "import urllib.request, sys; urllib.request.urlopen(sys.argv[1])", URL])
""",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_goes_round_the_tape_is_seen(desk: Desk, kind: str, leaky: str) -> None:
    """Calls by urllib, a websocket or a child are named in a replay and before the change, not after it."""
    call = f"URL = os.environ['AGENT_URL'] + '/raw/bytes/1'\n{leaky}"
    run = desk.recorded(f"say('a')\n{call}\nsay('b')")
    result = replay(run)
    assert not result.passed
    assert [leak.port for leak in result.leaks] == [desk.server.port]
    before = fork(run, at=1, edit=text("x"), oracle=lambda graded: True)
    assert before.problem is not None
    assert (before.problem.kind, before.outcome) == ("leak", None)
    (leak,) = before.leaks
    assert (leak.host, leak.port) == ("127.0.0.1", desk.server.port)
    assert ("agent.py:" in leak.caller) if kind != "child" else ("<string>" in leak.caller)
    with pytest.raises(Drift, match="--allow-host"):
        before.raise_for_problem()
    allowed = fork(run, at=1, edit=text("x"), allow_hosts=["127.0.0.1"])
    assert allowed.problem is None, allowed.problem
    after = fork(run, at=0, edit=text("x"))
    assert after.problem is None, after.problem


@pytest.mark.slow
def test_processes_of_one_fork_share_its_phase(desk: Desk) -> None:
    """A child process is served its part of the prefix, and goes live once its parent was changed."""
    body = """
        import subprocess
        if sys.argv[1:]:
            print(say(sys.argv[1], forget=True))
        else:
            subprocess.run([sys.executable, "agent.py", "child"])
            print(say("a", forget=True), flush=True)
            subprocess.run([sys.executable, "agent.py", "child"])
    """
    run = desk.recorded(body)
    made = fork(run, at=1, edit=text("x"))
    assert made.problem is None, made.problem
    assert made.stdout == "CHILD\nx\nCHILD\n"
    assert desk.asked() == ["child"]
    assert (made.calls_replayed, made.calls_live, made.reconverged_at) == (1, 1, 2)


@pytest.mark.slow
def test_many_forks_at_once_do_not_meet(four: tuple[Desk, Run]) -> None:
    """Forks with different edits run at once, each on its own answers, and come back in order."""
    desk, run = four
    words = [f"word-{n}" for n in range(8)]
    done: list[Fork] = []
    with Forker(run, jobs=4) as forker:
        made = forker.forks(
            [Planned(change=text(word).bind(forker.tape, 1)) for word in words], on_done=done.append
        )
    assert [one.stdout for one in made] == [f"A {word} C D\n" for word in words]
    assert [one.trial for one in made] == list(range(8))
    assert {one.run_id for one in done} == {one.run_id for one in made}
    assert all(one.problem is None for one in made)
    assert len(desk.server.requests) == 16
    ids = {"ids": [one.run_id for one in made]}
    rows = desk.store.rows("SELECT * FROM forks WHERE list_contains($ids::VARCHAR[], run_id)", ids)
    assert [(row["calls_replayed"], row["calls_live"]) for row in rows] == [(1, 2)] * 8


@pytest.mark.slow
def test_a_batch_is_sealed_once(four: tuple[Desk, Run]) -> None:
    """Forks of one call make one segment of exchanges and one of the director's spans, however many."""
    desk, run = four
    before = len(desk.store.entries)
    made = fork(run, at=3, edit=noop(), times=3, jobs=3)
    assert len(made) == 3
    assert len(desk.store.entries) - before == 2
    assert not list((desk.store_path / "wal").iterdir())


@pytest.mark.slow
def test_times_gives_a_list(desk: Desk) -> None:
    """One fork is a Fork, several are a list, none is refused."""
    run = desk.recorded("say('a')")
    assert isinstance(fork(run, at=0, edit=noop()), Fork)
    assert [one.trial for one in fork(run, at=0, edit=noop(), times=2)] == [0, 1]
    for wrong in ({"times": 0}, {"jobs": 0}):
        with pytest.raises(UsageError, match="at least one"):
            fork(run, at=0, edit=noop(), **wrong)


@pytest.mark.slow
def test_wrong_edits_are_refused_before_anything_runs(desk: Desk) -> None:
    """A step, path or value that does not fit starts no agent and leaves nothing behind."""
    run = desk.recorded("print(say('a'))\nsay('b')")
    runs = len(desk.store.runs())
    for at, edit, why in [
        (7, noop(), "its steps are 0..1"),
        (0, request(set={"no.such": 1}), "no.such"),
        (0, response("{not json"), "step 0"),
        (0, "Sorry", r"'Sorry' is no edit: give one, such as text\("),
    ]:
        with pytest.raises(UsageError, match=why):
            fork(run, at=at, edit=edit)
    assert len(desk.store.runs()) == runs
    assert desk.store.rows("SELECT * FROM forks") == []
    assert not list(desk.store_path.glob(".fork-*"))
    tape = reconstruct(desk.store, run)
    with pytest.raises(UsageError, match="--agent"):
        fork(Tape(run_id=tape.run_id, exchanges=tape.exchanges), at=0, edit=noop())


@pytest.mark.slow
def test_spans_of_a_fork(desk: Desk) -> None:
    """The agent's spans are below the fork's root in threads too; both traces lead to each other."""
    desk.recorded("""
        import threading
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        trace.set_tracer_provider(TracerProvider())
        tracer = trace.get_tracer("mine")
        def work(word):
            with tracer.start_as_current_span("work " + word): say(word, forget=True)
        work("a")
        thread = threading.Thread(target=work, args=("b",)); thread.start(); thread.join()
    """)
    (run,) = (run for run in desk.store.runs() if run.name == "work a")
    took = run.duration_ms
    made = fork(run, at=0, edit=noop(), oracle=lambda graded: True)
    assert made.problem is None, made.problem
    (root,) = spans_of(desk, f"trace_id = '{made.run_id}' AND parent_span_id IS NULL")
    assert (root["name"], root["service"], root["status"]) == ("fork work a@0", "tracefork", "UNSET")
    assert {link["attributes"]["tracefork.link"] for link in root["links"]} == {"parent", "forked_from"}
    assert {link["trace_id"] for link in root["links"]} == {run.run_id}
    told = root["attributes"]
    assert told["tracefork.parent.run_id"] == run.run_id
    assert (told["tracefork.fork.step"], told["tracefork.fork.intervention"]) == (0, "noop")
    assert told["tracefork.run.outcome"] is True
    below = spans_of(desk, f"trace_id = '{made.run_id}' AND name LIKE 'work%'")
    assert [span["parent_span_id"] for span in below] == [root["span_id"]] * 2
    calls = spans_of(desk, f"trace_id = '{made.run_id}' AND name LIKE 'chat%'")
    assert [span["attributes"]["tracefork.phase"] for span in calls] == ["intervention", "tail"]
    assert [span["attributes"].get("tracefork.replayed") for span in below] == [None, None]
    (note,) = spans_of(desk, f"trace_id = '{run.run_id}' AND name LIKE 'tracefork.fork%'")
    assert (note["name"], note["parent_span_id"]) == ("tracefork.fork noop", run.exchanges[0].span_id)
    assert note["links"][0]["trace_id"] == made.run_id
    assert note["attributes"]["tracefork.fork.outcome"] is True
    assert desk.store.run(run.run_id).duration_ms == took
    assert desk.store.run(made.run_id).outcome is True


@pytest.mark.slow
def test_a_fork_is_a_run_like_any_other(desk: Desk) -> None:
    """It replays bit-exact, and it can be forked again, under its agent's own name."""
    run = desk.recorded(FOUR)
    made = fork(run, at=1, edit=text("other"))
    desk.server.close()
    result = replay(open_store(desk.store_path).run(made.run_id))
    assert result.passed, result.receipt
    again = fork(desk.store.run(made.run_id), at=3, edit=text("end"), tail="offline")
    assert again.problem is None, again.problem
    assert (again.stdout, again.parent_run_id) == ("A other C end\n", made.run_id)
    assert desk.store.run(again.run_id).name == "fork agent.py@3"


@pytest.mark.slow
def test_a_tape_forks_without_a_store(four: tuple[Desk, Run], tmp_path: Path) -> None:
    """A tape alone is forked and accounted for; kept is the fork only where a store is named."""
    desk, run = four
    tape = reconstruct(desk.store, run)
    made = fork(tape, at=1, edit=text("x"))
    assert (made.problem, made.stdout, made.store) == (None, "A x C D\n", None)
    with pytest.raises(UsageError, match="not kept"):
        _ = made.run
    other = open_store(tmp_path / "other")
    kept = fork(tape, at=1, edit=text("x"), store=other)
    assert kept.run.parent_run_id == tape.run_id
    (name,) = open_store(tmp_path / "other").rows(
        "SELECT count(*) AS n FROM spans WHERE name LIKE 'tracefork.%'"
    )
    assert name["n"] == 0, "there is no trace of the parent to put a note in"


@pytest.mark.slow
def test_an_oracle_that_raises_leaves_a_readable_fork(four: tuple[Desk, Run]) -> None:
    """The error is the caller's; the fork's root is ended and the run is in the store."""
    desk, run = four

    def broken(graded: object) -> bool:
        raise KeyError("verdict")

    before = {run.run_id for run in desk.store.runs("fork")}
    with pytest.raises(UsageError, match="verdict"):
        fork(run, at=1, edit=noop(), oracle=broken)
    (kept,) = (run for run in desk.store.runs("fork") if run.run_id not in before)
    assert (kept.outcome, kept.status, kept.steps) == (None, "ok", 4)


DIRECTOR = """
import sys
from tracefork_backend.rerun.edits import noop
from tracefork_backend.rerun.forking import fork
from tracefork_backend.store import open_store
made = fork(open_store("store").run("last"), at=1, edit=noop(), times=4, jobs=2)
print([str(one.problem) for one in made])
"""
SLEEPER = """
say("a"), say("b")
open(f"pid-{os.getpid()}", "w").close()
import time; time.sleep(300)
"""


def director(desk: Desk) -> tuple[subprocess.Popen[str], list[int]]:
    """A process that makes four forks, two at once, of an agent that sleeps, and the sleepers."""
    process = subprocess.Popen(
        [sys.executable, "-c", DIRECTOR],
        cwd=desk.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while len(found := list(desk.folder.glob("pid-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(found) == 2
    return process, [int(path.name.removeprefix("pid-")) for path in found]


@pytest.mark.slow
def test_an_interrupt_ends_every_fork(desk: Desk) -> None:
    """Ctrl-C ends all agents that run and starts no other; what they did is in the store, as unfinished."""
    desk.recorded(FOUR)
    desk.write(SLEEPER)
    process, pids = director(desk)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert not any(map(alive, pids))
    assert len(list(desk.folder.glob("pid-*"))) == 2
    found = desk.store.runs("fork")
    assert [(run.steps, run.status) for run in found] == [(2, "error")] * 2
    assert not list(desk.store_path.glob(".fork-*"))


@pytest.mark.slow
def test_a_killed_director_leaves_no_agent_and_loses_nothing(desk: Desk) -> None:
    """After kill -9 the agents end too, and the next fork brings what they recorded into the store."""
    run = desk.recorded(FOUR)
    desk.write(SLEEPER)
    process, pids = director(desk)
    process.kill()
    process.communicate(timeout=30)
    deadline = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))
    assert len(list(desk.store_path.glob(".fork-*"))) == 1
    assert {run.status for run in desk.store.runs("fork")} <= {"killed"}
    desk.write(FOUR)
    made = fork(desk.store.run(run.run_id), at=1, edit=noop())
    assert made.problem is None, made.problem
    assert not list(desk.store_path.glob(".fork-*"))
    assert sorted((run.steps, run.status) for run in desk.store.runs("fork")) == [
        (2, "killed"),
        (2, "killed"),
        (4, "ok"),
    ]


@pytest.mark.slow
def test_a_workspace_of_a_living_director_is_left_alone(four: tuple[Desk, Run]) -> None:
    """Two directors fork the same run at once; neither takes the other's files."""
    desk, run = four
    with Forker(run) as one, Forker(desk.store.run(run.run_id)) as two:
        first, second = one.fork(1, text("x")), two.fork(1, text("y"))
        third = one.fork(2, text("z"))
    assert [made.stdout for made in (first, second, third)] == ["A x C D\n", "A y C D\n", "A B z D\n"]
    assert all(desk.store.has_run(made.run_id) for made in (first, second, third))


@pytest.mark.slow
def test_the_environment_of_the_caller(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded values are given back; settings of the caller's own recording are not handed down."""
    monkeypatch.setenv("FLAVOUR", "plum")
    run = desk.recorded("print(say('a'), os.environ['FLAVOUR'], os.environ['TRACEFORK_MODE'])")
    monkeypatch.setenv("FLAVOUR", "none")
    monkeypatch.setenv("TRACEFORK_EVENT_BODY_LIMIT", "nonsense")
    assert fork(run, at=0, edit=noop()).stdout == "A plum fork\n"
    assert os.environ["FLAVOUR"] == "none"


@pytest.mark.slow
def test_a_store_that_cannot_be_written_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork has to be kept, so nothing is started where it cannot be; another store may be named."""
    run = desk.recorded("print(say('a'))")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != desk.store_path)  # root may always
    locked = open_store(desk.store_path)
    assert not locked.writable
    with pytest.raises(StoreError, match="name another store"):
        fork(locked.run(run.run_id), at=0, edit=noop())
    other = open_store(desk.folder / "other")
    assert fork(locked.run(run.run_id), at=0, edit=noop(), store=other).problem is None
    assert desk.asked() == []


@pytest.mark.slow
def test_a_function_that_returns_nothing_is_graded_by_what_it_printed(desk: Desk) -> None:
    """None is no answer: what the command printed is, in the fork and in the recorded run."""
    run = desk.recorded("""
        @tracefork_otel.agent
        def main():
            print("DONE", say("a"))

        main()
    """)
    oracle = regex(success="DONE")
    made = fork(run, at=0, edit=text("other"), oracle=oracle)
    assert (made.outcome, made.output) == (True, "DONE other\n")
    assert grade(oracle, graded_run(run)) is True
