"""Agents and the models behind them for experiments with real forks: their causes are planted."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx2

from ..simulate import Call, Reply, ToolUse, Usage

MODEL = "claude-haiku-4-5"
SYSTEM = "Look things up, one after the other."
_ITEM = "item {}"
_USED = Usage(input_tokens=100, output_tokens=0)


class Coin:
    """A model whose last answer is won or lost by chance, whatever was said before."""

    def __init__(self) -> None:
        self.loses = 0.0
        """Chance that the last answer is LOST."""
        self.rng = random.Random(0)

    def __call__(self, call: Call) -> Reply:
        """Answer a question with a word, a sum with the winner."""
        if not call.last.startswith("sum "):
            return Reply(text="good", usage=_USED)
        return Reply(text="LOST" if self.rng.random() < self.loses else "WON", usage=_USED)


def ask(url: str, steps: int) -> str:
    """Ask for all but one step, then for the sum of the answers, and return that: an agent."""
    said: list[str] = []
    with httpx2.Client(verify=False) as client:  # no TLS here, and its setup costs more than a fork
        for step in range(steps):
            text = f"sum {' '.join(said)}" if step == steps - 1 else f"question {step}"
            messages = [{"role": "user", "content": text}]
            content = _answer(client, url, {"messages": messages})
            said.append(str(content[0]["text"]).replace(" ", "_"))
    return said[-1]


class Careless:
    """A model that asks for one item a turn; a turn that was harmed in any way makes it ask for another.

    Its last answer is LOST where the item of the planted turn was not asked for, whatever else happened.
    """

    def __init__(self) -> None:
        self.planted = 0
        self.steps = 4
        self.latency_s = 0.0
        """How long each answer takes."""

    async def __call__(self, call: Call) -> Reply:
        """Answer with a tool call, or with how it ended."""
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        turns: list[Any] = list(call.body["messages"])
        asked = [turn["content"][0]["input"]["q"] for turn in turns if turn["role"] == "assistant"]
        told = [turn["content"][0]["content"] for turn in turns[1:] if turn["role"] == "user"]
        turn = len(asked)
        if turn >= self.steps - 1:
            won = asked[self.planted] == _ITEM.format(self.planted)
            return Reply(text="WON" if won else "LOST", usage=_USED)
        harmed = call.body.get("system") != SYSTEM or any("fact" not in result for result in told)
        item = "something else" if harmed else _ITEM.format(turn)
        return Reply(tools=(ToolUse(name="lookup", input={"q": item}),), usage=_USED)


def look_up(url: str, steps: int) -> str:
    """Answer each tool call with a fact, until the model says how it ended: an agent."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Find out."}]
    with httpx2.Client(verify=False) as client:  # no TLS here, and its setup costs more than a fork
        for _ in range(steps):
            content = _answer(client, url, {"system": SYSTEM, "messages": messages})
            if content[0]["type"] == "text":
                return str(content[0]["text"])
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


def _answer(client: httpx2.Client, url: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
    response = client.post(f"{url}/v1/messages", json={"model": MODEL, "max_tokens": 9, **asked})
    return response.raise_for_status().json()["content"]
