"""Trajectories of others, imported from files: read whole, once, refused by place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tracefork_backend as tf
from tracefork_backend.network.trajectories import import_trajectories

from tracefork_otel.errors import TapeError, UsageError

TRAJECTORY: dict[str, Any] = {
    "task_id": 7,
    "reward": 1.0,
    "info": {"user": "mia"},
    "messages": [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Which seats?", "mood": "curious"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "seats", "arguments": '{"flight": "JL1"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "9"},
        {"role": "assistant", "content": "Nine.", "reasoning": "as the tool says"},
        {"role": "WebSurfer", "content": "I look it up."},
    ],
}


def imported(folder: Path, text: str, form: Any = "openai-messages") -> Any:
    """What came of importing a file of this text."""
    (folder / "others.json").write_text(text)
    return import_trajectories(folder / "store", folder / "others.json", form)


def test_each_thing_that_the_model_said_is_a_step(tmp_path: Path) -> None:
    """With all before it as its prompt; fields that nobody knows are kept; tools are calls with results."""
    taken = imported(tmp_path, json.dumps([TRAJECTORY, {**TRAJECTORY, "task_id": 8}]))
    assert (len(taken.runs), taken.new, taken.steps) == (2, 2, 6)
    with tf.open_store(tmp_path / "store") as store:
        run = store.run(taken.runs[0])
        assert (run.name, run.steps, run.status) == ("others 7", 3, "ok")
        bodies = [json.loads(one.request.body) for one in run.exchanges]
        assert [len(body["messages"]) for body in bodies] == [2, 4, 5]
        assert bodies[0]["messages"] == TRAJECTORY["messages"][:2]
        assert (
            json.loads(run.exchanges[1].response.body)["choices"][0]["message"] == TRAJECTORY["messages"][4]
        )
        assert json.loads(run.exchanges[2].response.body)["choices"][0]["message"]["name"] == "WebSurfer"
        tool = "select name, arguments, result from tools where run_id = $run"
        assert store.rows(tool, {"run": run.run_id}) == [
            {"name": "seats", "arguments": '{"flight": "JL1"}', "result": "9"}
        ]
        ((fields,),) = store.answer(
            "select attributes from spans where name = 'others 7' and trace_id = $run", {"run": run.run_id}
        ).rows
        assert json.loads(fields)["import.reward"] == 1.0
        assert json.loads(json.loads(fields)["import.info"]) == {"user": "mia"}
        with pytest.raises((TapeError, UsageError), match="fidelity = messages"):
            tf.replay(run)


def test_a_second_import_adds_nothing(tmp_path: Path) -> None:
    """Nor does a longer file for those that it begins with; equal trajectories are a run each."""
    assert imported(tmp_path, json.dumps([TRAJECTORY, TRAJECTORY])).new == 2
    again = imported(tmp_path, json.dumps([TRAJECTORY, TRAJECTORY, {**TRAJECTORY, "task_id": 9}]))
    assert (again.new, again.steps, len(again.runs)) == (1, 3, 3)
    with tf.open_store(tmp_path / "store") as store:
        assert [run.steps for run in store.runs()] == [3, 3, 3]


def test_a_list_of_messages_and_lines_are_trajectories_too(tmp_path: Path) -> None:
    """One alone, and one a line, as fine-tuning files have them."""
    assert imported(tmp_path, json.dumps(TRAJECTORY["messages"])).new == 1
    lines = "\n".join(json.dumps({**TRAJECTORY, "task_id": number}) for number in range(3))
    assert imported(tmp_path, lines + "\n\n").new == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x", "this is no JSON"),
        ("5", "no list of messages"),
        ('{"a": 1}', "none of messages, traj"),
        ('{"messages": [{"role": 3}]}', r"messages\[0\]: this is no message"),
        ('[{"messages": []}, 7]', r"\[1\]: this is no list"),
        ('{"messages": []}\n{"messages": {}}', "line 2: there are no messages"),
        ('{"messages": []}\nx', "line 2: this is no JSON"),
    ],
)
def test_what_is_no_trajectory_is_refused_by_its_place(text: str, says: str, tmp_path: Path) -> None:
    """And nothing is imported."""
    with pytest.raises(UsageError, match=says):
        imported(tmp_path, text)
    assert not (tmp_path / "store").exists()


def test_otlp_of_a_collectors_file(tmp_path: Path) -> None:
    """One request a line; spans without ids are named and left out."""

    def span(**more: Any) -> dict[str, Any]:
        said = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "hi"}]}])
        told = {
            "gen_ai.operation.name": "chat",
            "gen_ai.input.messages": said,
            "gen_ai.output.messages": said,
        }
        attributes = [{"key": key, "value": {"stringValue": value}} for key, value in told.items()]
        ids = {"traceId": "ab" * 16, "spanId": "cd" * 8}
        return {
            **ids,
            "name": "chat",
            "startTimeUnixNano": "1",
            "endTimeUnixNano": "2",
            "attributes": attributes,
            **more,
        }

    def line(*spans: Any) -> str:
        return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})

    text = "\n".join((line(span()), line(span(spanId="ce" * 8), span(traceId="00"))))
    taken = imported(tmp_path, text, "otlp")
    assert (taken.new, taken.steps, len(taken.left_out)) == (1, 2, 1)
    assert imported(tmp_path, text, "otlp").steps == 0
    with pytest.raises(UsageError, match=r"line 2: not an OTLP trace request|line 2: the JSON body"):
        imported(tmp_path, line(span()) + "\n[1]", "otlp")
