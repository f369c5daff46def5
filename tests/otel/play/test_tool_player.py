"""Which recorded result a call of a tool gets, decided without any I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracefork_otel.errors import TapeError
from tracefork_otel.play.claims import Claims
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.play.loading import Unplayable
from tracefork_otel.play.tools import Placement, Recalled, Refused, Replaced, Runs, ToolPlayer, ToolsMode
from tracefork_otel.tape.reads import ToolCall
from tracefork_otel.tape.tape import Tape

REPLAY = Placement("replay", 0)
TAIL = Placement("tail", 1)


def call(at: int, name: str = "look", given: object = "Lima", **fields: Any) -> ToolCall:
    """The call number `at`, which gave `at`."""
    values: dict[str, Any] = {
        "name": name,
        "arguments": json.dumps({"city": given}),
        "form": "value",
        "result": str(at),
        "span_id": f"{at:016x}",
        "process_id": "1-0",
        "started_ns": 10 * at,
        "ended_ns": 10 * at + 5,
    }
    return ToolCall(**{**values, **fields})


def player(
    *calls: ToolCall, mode: ToolsMode | None = None, at: Placement = REPLAY, **options: Any
) -> ToolPlayer:
    """A player that stands at a place."""
    return ToolPlayer(calls, mode=mode, placement=lambda: at, **options)


def ask(tools: ToolPlayer, *given: object, name: str = "look", by_text: Sequence[str] = ()) -> list[object]:
    """What each call gets: a recorded result, why its function runs, or why it is refused."""
    found: list[object] = []
    for city in given:
        answer = tools.answer(name, json.dumps({"city": city}), tuple(by_text))
        if isinstance(answer, Recalled):
            found.append(int(answer.call.result))
        elif isinstance(answer, Replaced):
            found.append(f"replaced {answer.result}")
        elif isinstance(answer, Runs):
            found.append(answer.why)
        else:
            found.append(answer.explanation)
    return found


def test_results_go_by_name_and_arguments_first_unused_first() -> None:
    """Whatever the order of the calls, equal ones get their results in turn, each once."""
    tools = player(call(0), call(1, given="Oslo"), call(2), call(3, name="other"))
    assert ask(tools, "Lima", "Oslo", "Lima") == [0, 1, 2]
    (refused,) = ask(tools, "Lima")
    assert "is not on the tape (tool_result)" in refused.text()  # type: ignore[attr-defined]
    assert ask(tools, "Lima", name="other") == [3]


def test_a_call_that_is_not_recorded_says_what_differs() -> None:
    """The nearest call of that tool, the argument that differs, and what to do."""
    (why,) = ask(player(call(0, given="Oslo")), "Lima")
    text = why.text()  # type: ignore[attr-defined]
    assert text.startswith(
        'step 0: tool look({"city": "Lima"}) differs from its tape at city (tool_result): recorded Oslo, '
        "got Lima; no result of this call is recorded"
    )
    assert text.endswith("--tools live")


def test_without_a_recording_tools_run() -> None:
    """The default is `recorded` where there is a recording; asked for, it holds without one."""
    assert ask(player(), "Lima") == ["live"]
    assert ask(player(call(0), mode="live"), "Lima") == ["live"]
    for mode in ("recorded", "refuse"):
        assert isinstance(player(mode=mode).answer("look", "{}"), Refused)


@pytest.mark.parametrize("mode", ["recorded", "refuse"])
def test_what_cannot_be_served_runs_or_is_refused(mode: ToolsMode) -> None:
    """A text is no result; a tool that makes requests runs in either mode, for they are served."""
    calls = (call(0, form="text", result="Seats(1)"), call(1, given="Oslo", exchanges=2))
    text, requests = (player(*calls, mode=mode).answer("look", one.arguments) for one in calls)
    assert isinstance(requests, Runs)
    assert requests.why == "exchanges"
    if mode == "recorded":
        assert text == Runs("text", calls[0])
    else:
        assert isinstance(text, Refused)
        assert "its recorded result is no JSON" in text.explanation.text()


def test_arguments_that_are_no_json_may_differ_up_to_a_forks_change() -> None:
    """Equal ones go first; what is left is told apart by the others, and that is said; not in a tail."""
    recorded = [call(n, given=f"<Thing {n}>", by_text=("city",)) for n in range(3)]
    tools = player(*recorded)
    assert ask(tools, "<Thing 1>", "<Thing 9>", by_text=["city"]) == [1, 0]
    loosely = tools.answer("look", json.dumps({"city": "<Thing 8>"}), ("city",))
    assert loosely == Recalled(recorded[2], True)
    assert ask(player(*recorded, at=TAIL), "<Thing 9>", by_text=["city"]) == ["tail"]


def test_a_tool_that_always_runs_uses_up_its_recording() -> None:
    """So that its calls are not missed; one that is not recorded runs as well, unless that is refused."""
    for mode in ("recorded", "refuse"):
        tools = player(call(0), mode=mode)
        assert tools.answer("look", call(0).arguments, live=True) == Runs("live", tools.calls[0])
        other = tools.answer("look", call(0).arguments, live=True)
        assert (other == Runs("live")) == (mode == "recorded")


def test_nothing_is_called_where_the_tape_cannot_be_read() -> None:
    """A replay whose tape is broken lets no tool run."""
    with pytest.raises(TapeError, match="gone"):
        Unplayable("the tape is gone").tools.answer("look", "{}", ())


def test_calls_within_a_served_call_are_not_left_over() -> None:
    """What a served tool would have called is used with it: an equal call elsewhere gets its own."""
    outer = call(0, name="outer")
    inner = call(1, inside=outer.span_id)
    innermost = call(2, inside=inner.span_id)
    tools = player(outer, inner, innermost, call(3))
    assert ask(tools, "Lima", name="outer") == [0]
    assert ask(tools, "Lima") == [3]
    runs = player(call(0, name="outer", exchanges=1), inner)
    assert (ask(runs, "Lima", name="outer"), ask(runs, "Lima")) == (["exchanges"], [1])


def test_the_tail_of_a_fork_runs_what_is_not_recorded() -> None:
    """Recorded calls are served there too; others run, unless the tail is offline."""
    assert ask(player(call(0), at=TAIL), "Lima", "Lima", "Oslo") == [0, "tail", "tail"]
    offline = player(call(0), at=Placement("tail", 1, offline=True))
    served, refused = ask(offline, "Lima", "Oslo")
    assert served == 0
    assert "the tail is offline" in refused.text()  # type: ignore[attr-defined]


def test_an_unknown_call_in_the_prefix_leaves_the_tape() -> None:
    """The fork is told, so that nothing goes live afterwards."""
    left: list[bool] = []
    tools = player(call(0), at=Placement("prefix", 0), leave=lambda: left.append(True))
    answer = tools.answer("look", '{"city": "Oslo"}')
    assert isinstance(answer, Refused)
    assert (answer.phase, left) == ("prefix", [True])


def change(at: int | None, result: str = '"new"', tool: str = "look") -> Intervention:
    """Another result of that recorded call."""
    return Intervention(kind="tool_result", step=0, label="tool_result", tool=tool, result=result, call=at)


def test_a_changed_result_goes_to_the_call_that_is_meant() -> None:
    """Not before the change is due, not to another branch's call, once; its recorded result is used up."""
    due = Placement("tail", 1, changes=(change(1),))
    now = [REPLAY]
    tools = ToolPlayer(
        [call(0), call(1), call(2, given="Oslo"), call(3)], mode=None, placement=lambda: now[0]
    )
    assert ask(tools, "Lima") == [0]
    now[0] = due
    assert ask(tools, "Oslo", "Lima", "Lima", "Lima") == [2, 'replaced "new"', 3, "tail"]
    live = player(call(0), call(1, given="Oslo"), mode="live", at=due)
    assert ask(live, "Lima", "Oslo", "Oslo") == ["live", 'replaced "new"', "live"]
    other = player(call(0), call(1), at=due)
    assert ask(other, "Bonn") == ['replaced "new"']  # the agent asks for something else than it did


def test_a_tool_that_calls_the_changed_one_runs() -> None:
    """Else the change would never be seen."""
    outer = call(0, name="outer")
    tools = player(outer, call(1, inside=outer.span_id), at=Placement("tail", 0, changes=(change(1),)))
    assert ask(tools, "Lima", name="outer") == ["change"]
    assert ask(tools, "Lima") == ['replaced "new"']


def test_threads_and_processes_get_each_result_once(tmp_path: Path) -> None:
    """Any number of callers, in two processes that share claims: every result, none twice."""
    (tmp_path / "claims").mkdir()
    calls = [call(n) for n in range(60)]
    players = [player(*calls, claim=Claims(tmp_path / "claims")) for _ in range(2)]
    with ThreadPoolExecutor(8) as jobs:
        found = list(jobs.map(lambda n: ask(players[n % 2], "Lima")[0], range(60)))
    assert sorted(found) == list(range(60))  # type: ignore[type-var]


TEXT = st.text(st.characters(), max_size=6)
VALUES = st.recursive(
    st.none() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def calls(draw: st.DrawFn) -> ToolCall:
    """Any call, as a span would have it."""
    from tracefork_otel.wire.dumps import dumps

    form = draw(st.sampled_from(["value", "text", "error"]))
    return call(
        draw(st.integers(0, 9)),
        name=draw(TEXT),
        arguments=dumps({"a": draw(VALUES)}),
        by_text=tuple(draw(st.lists(TEXT, max_size=2))),
        form=form,
        result=draw(TEXT) if form == "text" else dumps(draw(VALUES)),
        exchanges=draw(st.integers(0, 2)),
        inside=draw(st.none() | st.just("ab" * 8)),
    )


@given(st.lists(calls(), max_size=3))
def test_a_tapes_file_gives_back_its_tools(given: list[ToolCall]) -> None:
    """Every call survives the file, which says nothing where there are none; the digest stays."""
    tape = Tape(run_id="ab" * 16, exchanges=(), tools=tuple(given))
    data = tape.to_bytes()
    assert Tape.from_bytes(data) == tape
    assert tape.digest == Tape(run_id="ab" * 16, exchanges=()).digest
    assert (b'"tools":' in data.splitlines()[0]) == bool(given)
