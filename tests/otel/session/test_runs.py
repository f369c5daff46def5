"""A script whose spans are several traces is one run, in every view and command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from threading import Thread

import pytest
from e2e.command import here
from forked import at_desk
from recorded import run_python
from tracefork_backend.rerun.edits import text
from tracefork_backend.rerun.forking import fork
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.rerun.replaying import replay
from tracefork_backend.store import Run, Store, removing

from tracefork_otel.session.runs import Runs

LINE = "from tracefork_otel import TraceforkInstrumentor as T; T().instrument(http_spans=False)\n"
TRACED = """
from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
trace.set_tracer_provider(TracerProvider())
SPAN = trace.get_tracer("mine").start_as_current_span
"""
TWO = """
@tracefork_otel.tool
def look(what: str) -> str:
    return what[::-1]

said = ""
for part in ("plan", "act"):
    with SPAN(part):
        said = say(look(part) + said)
print(say("all of " + said))
"""
"""Two spans one after the other, a tool in each, and a call outside of them."""


@contextmanager
def recorded(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str, *, by: str) -> Iterator[Store]:
    """A store with what a traced script recorded, by `run` or by the one line, and a model to go on with."""
    with at_desk(folder, monkeypatch) as desk:
        desk.write((LINE if by == "line" else "") + TRACED + dedent(body))
        if by == "run":
            desk.record()
        else:
            run_python(["agent.py"], store=desk.store_path, check="raise" not in body)
        with desk.store as store:
            yield store


def sent(run: Run) -> list[str]:
    """The last message of each step."""
    return [json.loads(one.request.body)["messages"][-1]["content"] for one in run.exchanges]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["run", "line"])
def test_a_script_of_several_spans_is_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """It lists, reads, replays, forks and goes as one, and its spans stay where they were."""
    with recorded(tmp_path, monkeypatch, TWO, by=by) as store:
        (run,) = store.runs()
        assert (run.name, run.steps, run.status) == ("plan", 3, "ok")
        plan, act, last = run.exchanges
        assert plan.told_in == run.run_id
        assert len({plan.told_in, act.told_in, last.told_in}) == 3
        roots = store.rows("SELECT name, trace_id FROM spans WHERE scope = 'mine' ORDER BY started_at")
        assert [(row["name"], row["trace_id"]) for row in roots] == [
            ("plan", plan.told_in),
            ("act", act.told_in),
        ]
        # A trace that a person knows from elsewhere leads to its run.
        assert store.run(act.told_in).run_id == run.run_id == store.run(act.told_in[:12]).run_id
        tools = store.rows(
            "SELECT run_id, step_before, arguments FROM tools ORDER BY step_before NULLS FIRST"
        )
        assert [(row["run_id"], row["step_before"]) for row in tools] == [(run.run_id, None), (run.run_id, 0)]
        tape = reconstruct(store, run, command=True)
        assert (tape.steps, len(tape.tools)) == (3, 2)
        again = replay(run)
        assert again.passed, again.receipt
        made = fork(run, at=1, edit=text("four"), tail="recorded")
        forked = store.run(made.run_id)
        assert (made.calls_replayed, forked.kind, forked.parent_run_id) == (1, "fork", run.run_id)
        links = store.rows("SELECT links FROM spans WHERE span_id = ?", [store.root_of(made.run_id)])
        assert act.told_in in links[0]["links"]
        traces = [one.told_in for one in run.exchanges]
        removing.remove(store, removing.planned(store, [run.run_id]))
        left = store.rows("SELECT * FROM spans WHERE list_contains($1::VARCHAR[], trace_id)", [traces])
        assert left == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("say('two')", "ok"),
        ("say('two'); raise ValueError('lost')", "error"),
        ("say('two'); os._exit(0)", "killed"),
    ],
)
def test_the_last_span_says_how_the_run_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, status: str
) -> None:
    """A failure that an earlier one got over is none of the run's."""
    body = f"""
    try:
        with SPAN("first"):
            say("one")
            raise KeyError
    except KeyError:
        pass
    with SPAN("second"):
        {ending}
    """
    with recorded(tmp_path, monkeypatch, body, by="run") as store:
        (run,) = store.runs()
        assert (run.name, run.steps, run.status) == ("first", 2, status)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["run", "line"])
def test_an_agents_call_is_a_run_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """What is called in a span, or is a root itself, is apart from what the script does beside it."""
    body = """
    @tracefork_otel.agent
    def work(n):
        return say(f"work {n}", forget=True)

    with SPAN("before"):
        say("before", forget=True)
    for n in range(2):
        with SPAN(f"task {n}"):
            work(n)
    with SPAN("after"):
        say("after", forget=True)
    """
    with recorded(tmp_path, monkeypatch, body, by=by) as store:
        assert sorted((run.name, sent(run)) for run in store.runs()) == [
            ("before", ["before", "after"]),
            ("task 0", ["work 0"]),
            ("task 1", ["work 1"]),
        ]


@pytest.mark.slow
def test_threads_with_spans_of_their_own_are_in_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever asks first."""
    body = """
    from concurrent.futures import ThreadPoolExecutor
    def task(n):
        with SPAN(f"task {n}"):
            return say(f"{n}", forget=True)
    with ThreadPoolExecutor(4) as pool:
        print(list(pool.map(task, range(8))))
    """
    with recorded(tmp_path, monkeypatch, body, by="run") as store:
        (run,) = store.runs()
        assert sorted(sent(run)) == [f"{n}" for n in range(8)]
        assert replay(run).passed


@pytest.mark.slow
def test_a_child_is_in_the_run_of_the_span_that_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the one line in each, and a parent whose span is not the first of its run."""
    body = f"""
    import subprocess
    if len(sys.argv) > 1:
        say("child")
        with SPAN("child's own"):
            say("child again")
    else:
        with SPAN("first"):
            say("first")
        with SPAN("second"):
            say("second")
            subprocess.run([{sys.executable!r}, "agent.py", "child"], check=True)
    """
    with recorded(tmp_path, monkeypatch, body, by="line") as store:
        (run,) = store.runs()
        assert sent(run) == ["first", "second", "child", "child again"]


@pytest.mark.slow
def test_a_trace_of_its_own_in_a_replay_is_in_the_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that the agent begins in an empty context, which is linked to it alone."""
    body = """
    with SPAN("outer", context=context.Context()):
        say("one")
    with SPAN("other", context=context.Context()):
        say("two")
    """
    with recorded(tmp_path, monkeypatch, body, by="run") as store:
        run = store.run("last")
        again = replay(run)
        assert again.passed, again.receipt
        assert sorted((one.kind, one.steps) for one in store.runs()) == [("record", 2), ("replay", 2)]


@pytest.mark.slow
def test_the_command_says_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In `run`'s last line, in `ls` and in `sql`."""
    with at_desk(tmp_path, monkeypatch) as desk:
        desk.write(TRACED + TWO)
        said = here("run", "--", sys.executable, "agent.py", cwd=tmp_path).err
        assert said.count(" recorded, ") == 1
        assert "recorded, 3 steps" in said
        listed = here("ls", "--json", cwd=tmp_path).rows
        assert [one["steps"] for one in listed] == [3]


def test_what_is_known_of_runs() -> None:
    """The first trace begins the process's run; an agent's call takes its trace out, an end ends it."""
    runs = Runs()
    assert runs.known(1) is None
    assert runs.of(1) == f"{1:032x}"
    assert runs.share(1) == runs.share(2) == f"{1:032x}" == runs.of(2)
    assert runs.apart(3) == f"{3:032x}"
    assert runs.apart(2) == f"{1:032x}"
    runs.called(2)
    assert runs.share(4) == f"{1:032x}"
    runs.called(1)
    assert runs.share(5) == f"{5:032x}"
    runs.ended()
    assert runs.share(6) == f"{6:032x}"
    assert runs.share(4) == f"{1:032x}"


def test_all_of_a_replay_is_one_run() -> None:
    """Whatever is called or ends in it."""
    runs = Runs("ab" * 16)
    runs.called(1)
    runs.ended()
    assert runs.share(1) == runs.share(2) == "ab" * 16


def test_many_traces_are_not_all_remembered() -> None:
    """A service that begins traces for months keeps a few of them, and one run."""
    runs = Runs()
    threads = [Thread(target=lambda n=n: [runs.share(n * 4000 + at) for at in range(4000)]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(runs.known(at) is not None for at in range(16000)) == 8192
    assert {runs.share(at) for at in range(16000)} == {runs.own}
