"""The five fault classes, tried at every step of agents with tools by real forks: the plant is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import tracefork_backend as tf
from conftest import Capture
from tracefork_backend.blame import changes
from tracefork_backend.simulate import ModelServer
from tracefork_backend.simulate.model import Call, Reply, ToolUse, Usage
from tracefork_backend.store import Run, open_store

import tracefork_otel

SYSTEM = "Look things up, one after the other."
GRADED = tf.regex(success="WON", failure="LOST")


class Careless:
    """A model that asks for one item a turn; a turn that was harmed in any way makes it ask for another.

    Its last answer is LOST where the item of the planted turn was not asked for, whatever else happened.
    """

    def __init__(self) -> None:
        self.planted = 0
        self.steps = 4

    def __call__(self, call: Call) -> Reply:
        """A tool call, or how it ended."""
        used = Usage(input_tokens=100, output_tokens=0)
        turns: list[Any] = list(call.body["messages"])
        asked = [turn["content"][0]["input"]["q"] for turn in turns if turn["role"] == "assistant"]
        told = [turn["content"][0]["content"] for turn in turns[1:] if turn["role"] == "user"]
        turn = len(asked)
        if turn >= self.steps - 1:
            return Reply(text="WON" if asked[self.planted] == f"item {self.planted}" else "LOST", usage=used)
        harmed = call.body.get("system") != SYSTEM or any("fact" not in result for result in told)
        item = "something else" if harmed else f"item {turn}"
        return Reply(tools=(ToolUse(name="lookup", input={"q": item}),), usage=used)


MODEL = Careless()


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    """The model."""
    with ModelServer(MODEL) as running:
        yield running


def look_up(url: str, steps: int) -> str:
    """An agent: it answers each tool call with a fact, until the model says how it ended."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Find out."}]
    with httpx2.Client(verify=False) as client:  # no TLS here, and its setup costs more than a fork
        for _ in range(steps):
            body = {"model": "claude-haiku-4-5", "max_tokens": 9, "system": SYSTEM, "messages": messages}
            content = client.post(f"{url}/v1/messages", json=body).raise_for_status().json()["content"]
            if content[0]["type"] == "text":
                return content[0]["text"]
            call = {name: content[0][name] for name in ("type", "id", "name", "input")}
            result = {
                "type": "tool_result",
                "tool_use_id": call["id"],
                "content": f"fact of {call['input']['q']}",
            }
            messages = [
                *messages,
                {"role": "assistant", "content": [call]},
                {"role": "user", "content": [result]},
            ]
    return "no answer"


@pytest.fixture
def recorded(capture: Capture, server: ModelServer, tmp_path: Path) -> Callable[[int, int], Run]:
    """Records one run of so many steps, in a store of its own, in a world that hangs on the planted step."""

    def make(steps: int, planted: int) -> Run:
        MODEL.steps, MODEL.planted = steps, planted
        capture.store = tmp_path / f"{steps}-{planted}"
        capture.on()
        tracefork_otel.agent(look_up)(server.url, steps)
        capture.off()
        return open_store(capture.store).run("last")

    return make


def _first(name: str) -> int:
    """The first step that has what the fault breaks: no tool has answered before step 1."""
    return 0 if name in ("wrong_system_prompt", "poisoned_argument") else 1


@pytest.mark.parametrize("name", changes.FAULT_CLASSES)
def test_each_fault_finds_the_step_that_it_harms(recorded: Callable[[int, int], Run], name: str) -> None:
    """Of four steps the planted one is the root, and no other is certified."""
    run = recorded(4, 1)
    assert run.steps == 4
    result = tf.blame(run, oracle=GRADED, change=changes.fault(name), mode="intervene", agent=look_up)
    assert result.findings.certified == (1,)
    assert result.findings.top == 1


@pytest.mark.slow
@pytest.mark.timeout(1500)  # more than a hundred experiments
@pytest.mark.parametrize("name", changes.FAULT_CLASSES)
def test_each_fault_finds_every_step_of_short_agents(recorded: Callable[[int, int], Run], name: str) -> None:
    """Agents of 2 to 8 steps, each step planted in turn: 95 % are named first, and a noop never is."""
    found = total = 0
    for steps in range(2, 9):
        for planted in range(_first(name), steps - 1):
            run = recorded(steps, planted)
            result = tf.blame(run, oracle=GRADED, change=changes.fault(name), mode="intervene", agent=look_up)
            total += 1
            found += result.top == planted
        run = recorded(steps, 0)
        nothing = tf.blame(run, oracle=GRADED, change=changes.noop(), mode="intervene", agent=look_up)
        assert nothing.findings.certified == ()
    assert found >= 0.95 * total
