"""Runs that are one call of a function: called again with its arguments, to any depth, and no other call."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import tracefork_backend as tf
from e2e.command import here
from forked import Desk, at_desk
from tracefork_backend.rerun.forker import Forker
from tracefork_backend.rerun.forking import fork
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.rerun.replaying import replay

from tracefork_otel import AgentFailed, Tape, UsageError

CLERK = """
    import datetime

    @tracefork_otel.agent
    def plan(city, *, nights=1):
        return [say(f"{city} {night}", forget=True) for night in range(nights)]

    @tracefork_otel.agent
    def due(day):
        return say(f"What is due on {day}?")

    class Clerk:
        @tracefork_otel.agent
        def answer(self, text):
            return say(text)

    def now():
        return due(datetime.date(2026, 3, 1))
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose model answers in capitals."""
    with at_desk(tmp_path, monkeypatch) as made:
        yield made


@pytest.mark.slow
def test_forks_of_forks_keep_the_arguments(desk: Desk) -> None:
    """A fork's fork's replay is forked, exported and called again as the first run was."""
    run = desk.called(CLERK, "plan('osaka', nights=3)")
    made = fork(run, at=0, edit=tf.text("first"))
    below = fork(made.run, at=1, edit=tf.text("second"))
    again = replay(below.run)
    assert again.passed, again.receipt
    with Forker(desk.store.run(again.replay_run_id)) as forker:
        last = forker.fork(2, tf.text("third"))
    assert (last.problem, last.result) == (None, '["first", "second", "third"]')
    tape = reconstruct(desk.store, last.run)
    tape.dump(desk.folder / "last.tape")
    assert Tape.load(desk.folder / "last.tape").start.arguments == {
        "args": ["osaka"],
        "kwargs": {"nights": 3},
    }
    assert here("replay", "last~2", "--store", desk.store_path, cwd=desk.folder).status == 0
    assert desk.asked() == ["osaka 1", "osaka 2", "osaka 2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("due(agent.datetime.date(2026, 3, 1))", "Object of type date is not JSON serializable"),
        ("Clerk().answer('hello')", "Object of type Clerk is not JSON serializable"),
        ("due({1, 2})", "Object of type set is not JSON serializable"),
    ],
)
def test_arguments_that_are_no_json_are_said_where_a_person_meets_them(
    desk: Desk, call: str, says: str
) -> None:
    """Nothing is started without them."""
    run = desk.called(CLERK, call)
    with pytest.raises(UsageError, match=f"cannot be replayed: it is a call of agent:.*{says}.* --agent"):
        replay(run)
    with pytest.raises(UsageError, match="cannot be forked"):
        fork(run, at=0, edit=tf.noop())
    shown = here("show", "last", "--store", desk.store_path, cwd=desk.folder)
    assert says in shown.out
    tape = reconstruct(desk.store, run)
    tape.dump(desk.folder / "lost.tape")
    with pytest.raises(UsageError, match="cannot be replayed"):
        replay(Tape.load(desk.folder / "lost.tape"), trust=True)


@pytest.mark.slow
def test_another_function_makes_the_call_whose_arguments_are_lost(desk: Desk) -> None:
    """It needs none."""
    run = desk.called(CLERK, "due(agent.datetime.date(2026, 3, 1))")
    assert replay(run, agent="agent:now").passed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at_import", "says"),
    [
        ("plan('osaka')", "its module makes a call while it is imported"),
        ("[plan('osaka') for _ in 'ab']", None),
        ("say('hello')", None),
    ],
)
def test_calls_of_a_module_that_is_imported_are_no_part_of_the_run(
    desk: Desk, at_import: str, says: str | None
) -> None:
    """What they ask is answered beside the tape, whose steps are the function's; what is on none is named."""
    run = desk.called(CLERK, "plan('osaka')")
    desk.write(f"{CLERK}\n    {at_import}\n")
    if says is None:
        with pytest.raises(AgentFailed, match="while it is imported"):
            replay(run)
    else:
        result = replay(run)
        assert (result.passed, result.matched) == (True, 1), result.receipt
        assert any(says in note for note in result.notes)
        made = fork(run, at=0, edit=tf.text("EDITED"))
        assert (made.problem, made.result, made.calls_live) == (None, '["EDITED"]', 0)
        assert any("__main__" in note for note in made.notes)
    assert desk.asked() == []


@pytest.mark.slow
def test_what_a_module_connects_to_while_it_is_imported_fails_the_replay(desk: Desk) -> None:
    """It is no call of the function, and has left this machine all the same."""
    run = desk.called(CLERK, "plan('osaka')")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        desk.write(f"{CLERK}\n    import socket; socket.create_connection(('127.0.0.1', {port})).close()\n")
        result = replay(run)
    assert not result.passed
    assert f"127.0.0.1:{port}" in "\n".join(result.receipt)
