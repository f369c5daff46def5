"""Tools of a command, replayed and forked in its own processes: a file counts how often they really ran."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import tracefork_backend as tf
from forked import Desk, at_desk
from tracefork_backend.blaming.changes import bound, of_edit
from tracefork_backend.rerun.estimate import estimate
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.store import Run

from tracefork_otel import UsageError

AGENT = '''
import asyncio
from pathlib import Path


def ran(name):
    with open("ran.txt", "a") as file:
        file.write(name + "\\n")


@tracefork_otel.tool
def seats(flight):
    """A tool with a result by value."""
    ran("seats")
    return {"flight": flight, "left": len(Path("ran.txt").read_text())}


@tracefork_otel.tool(name="book")
async def booked(flight):
    """An asynchronous tool with a text for a result."""
    await asyncio.sleep(0)
    ran("book")
    return "booked " + flight


@tracefork_otel.tool
def pay(flight):
    """A tool that fails."""
    ran("pay")
    raise FileNotFoundError(2, "No such file or directory", "card.txt")


say("hello")
left = seats("NH1")["left"]
answer = say(f"there are {left} seats")
if left == 0:
    answer = say("sold out: " + str(seats("JL2")["left"]))
print(asyncio.run(booked("NH1")))
try:
    pay("NH1")
except OSError as error:
    print(say(str(error)))
'''
REAL = ["seats", "book", "pay"]


@pytest.fixture(scope="module")
def booked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Desk, Run]]:
    """A desk on which that agent was recorded once."""
    with pytest.MonkeyPatch.context() as patch, at_desk(tmp_path_factory.mktemp("tools"), patch) as made:
        run = made.recorded(AGENT)
        yield made, run


@pytest.fixture
def desk(booked: tuple[Desk, Run]) -> Desk:
    """That desk, no tool of which has run yet."""
    made, _ = booked
    (made.folder / "ran.txt").write_text("")
    made.server.requests.clear()
    return made


@pytest.fixture
def run(booked: tuple[Desk, Run]) -> Run:
    """The recorded run."""
    return booked[1]


def ran(desk: Desk) -> list[str]:
    """The tools whose functions ran since the test began."""
    return (desk.folder / "ran.txt").read_text().split()


@pytest.mark.slow
def test_no_tool_of_a_command_runs_in_its_replay(desk: Desk, run: Run) -> None:
    """Sync and async, results and errors come from the tape; `live` runs them all, and the result differs."""
    rows = desk.store.rows("SELECT * FROM tools WHERE run_id = $id", {"id": run.run_id})
    told = {row["name"]: (row["step_before"], row["result"], row["error"], row["replayed"]) for row in rows}
    error = "FileNotFoundError: [Errno 2] No such file or directory: 'card.txt'"
    assert told == {
        "seats": (0, '{"flight": "NH1", "left": 6}', None, False),
        "book": (1, "booked NH1", None, False),
        "pay": (1, None, error, False),
    }
    again = tf.replay(run)
    assert (again.passed, ran(desk)) == (True, []), again.receipt
    assert "tools   3 of 3 served from the tape" in again.receipt
    query = "SELECT * FROM tools WHERE run_id = $id"
    (row, *_) = desk.store.rows(query, {"id": again.replay_run_id})
    assert row["replayed"] is True
    live = tf.replay(run, tools="live")
    assert (live.passed, sorted(ran(desk))) == (True, sorted(REAL)), live.receipt


@pytest.mark.slow
def test_a_fork_goes_on_from_another_result(desk: Desk, run: Run) -> None:
    """The tool gives the value, the agent goes on from it, and only what is not recorded runs for real."""
    made = tf.fork(run, at=0, edit=tf.tool_result("seats", {"flight": "NH1", "left": 0}))
    assert made.problem is None, made.problem
    assert ran(desk) == ["seats"]
    assert desk.asked()[:2] == ["there are 0 seats", "sold out: 6"]
    assert made.stdout.startswith("booked NH1")
    assert (made.step, made.forked_at, made.intervention) == (0, 0, "tool_result seats")
    assert made.tools == (
        "2 of 4 served from the tape; replaced: seats; ran for real, as it is not recorded: seats"
    )
    rows = desk.store.rows(
        "SELECT name, result, replayed FROM tools WHERE run_id = $id ORDER BY name, result",
        {"id": made.run_id},
    )
    assert [(row["name"], row["result"], row["replayed"]) for row in rows] == [
        ("book", "booked NH1", True),
        ("pay", None, True),
        ("seats", '{"flight": "JL2", "left": 6}', False),
        ("seats", '{"flight": "NH1", "left": 0}', True),
    ]
    (row,) = desk.store.rows("SELECT intervention FROM forks WHERE run_id = $id", {"id": made.run_id})
    assert row["intervention"] == "tool_result seats"
    forked = desk.store.run(made.run_id)
    (desk.folder / "ran.txt").write_text("")
    again = tf.replay(forked)  # a fork has a tape of its own, with the results that it saw
    assert (again.passed, ran(desk)) == (True, []), again.receipt


@pytest.mark.slow
def test_an_offline_tail_runs_no_tool(desk: Desk, run: Run) -> None:
    """What is recorded is served; another call is refused, and the fork says so."""
    same = tf.fork(run, at=0, edit=tf.noop(), tail="offline")
    assert (same.problem, ran(desk)) == (None, [])
    made = tf.fork(run, at=1, edit=tf.tool_result("book", "sold out"), tail="offline")
    assert made.problem is None, made.problem
    assert (made.stdout.splitlines()[0], ran(desk)) == ("sold out", [])
    other = tf.fork(run, at=0, edit=tf.tool_result("seats", {"left": 0}), tail="recorded", tools="refuse")
    assert other.problem is not None
    assert "tool seats" in other.problem.text
    assert ran(desk) == []


@pytest.mark.slow
def test_a_tool_that_the_step_does_not_call_is_refused(run: Run) -> None:
    """Before anything runs: what is called there, and where the tool is called."""
    for step, name, message in (
        (0, "book", "step 0: its answer does not call book; it calls seats; book is called at 1"),
        (2, "book", "step 2: its answer does not call book; it calls no tool; book is called at 1"),
        (1, "gone", "step 1: its answer does not call gone; it calls book, pay"),
    ):
        with pytest.raises(UsageError, match=message):
            tf.fork(run, at=step, edit=tf.tool_result(name, 1))
    with pytest.raises(UsageError, match="no JSON value"):
        tf.tool_result("book", object())
    with pytest.raises(UsageError, match="tools='bogus'"):
        tf.fork(run, at=0, edit=tf.noop(), tools="bogus")  # type: ignore[arg-type]


def test_blame_and_estimates_know_the_change(run: Run) -> None:
    """It fits the steps whose answer leads to the tool, and costs what follows from there."""
    tape = reconstruct(run.store, run)
    edit = tf.tool_result("book", "sold out")
    fits, why = bound(of_edit(edit), tape)
    assert (list(fits), sorted(why)) == ([1], [0, 2])
    assert estimate(tape, edit.bind(tape, 1)).calls == 1
    assert estimate(tape, edit.bind(tape, 1, tail="offline")).calls == 0


PLAIN = """
def ask(messages):
    body = {"model": "claude-haiku-4-5", "max_tokens": 64, "messages": messages}
    head = {"x-api-key": os.environ["AGENT_API_KEY"]}
    return client.post(os.environ["AGENT_URL"] + "/v1/messages", json=body, headers=head).json()["content"]


messages = [{"role": "user", "content": "book"}]
while True:
    content = ask(messages)
    calls = [block for block in content if block["type"] == "tool_use"]
    if not calls:
        break
    results = [
        {"type": "tool_result", "tool_use_id": one["id"], "content": "failed", "is_error": True}
        for one in calls
    ]
    messages += [{"role": "assistant", "content": content}, {"role": "user", "content": results}]
print(content[0]["text"])
"""


@pytest.mark.slow
def test_the_result_of_another_tool_is_changed_where_it_is_carried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool that is none of ours: the request that carries its result goes out with another one."""
    from tracefork_backend.simulate.model import Call, Reply, ToolUse

    def model(call: Call) -> Reply:
        if not call.tool_results:
            return Reply(tools=(ToolUse("book", {"flight": "NH1"}),))
        block = call.body["messages"][-1]["content"][0]
        return Reply(text=f"it says {block['content']}, error {block['is_error']}")

    with at_desk(tmp_path, monkeypatch, model) as desk:
        run = desk.recorded(PLAIN)
        made = tf.fork(run, at=0, edit=tf.tool_result("book", {"ok": True}))
        assert made.problem is None, made.problem
        assert made.stdout == 'it says {"ok": true}, error False\n'
        assert (made.step, made.calls_replayed, made.calls_live) == (1, 1, 1)
        assert made.notes[0].startswith("book is no @tracefork_otel.tool function: its result was changed")
        sent = json.loads(desk.server.requests[-1].body)
        assert sent["messages"][-1]["content"][0]["content"] == '{"ok": true}'
        (called,) = (one["tool_use_id"] for one in sent["messages"][-1]["content"])
        by_id = tf.fork(run, at=0, edit=tf.tool_result(called, {"ok": True}))
        assert by_id.notes == made.notes
        with pytest.raises(UsageError, match="step 1: its answer does not call book; it calls no tool"):
            tf.fork(run, at=1, edit=tf.tool_result("book", 1))
