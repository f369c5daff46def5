"""An agent that serves tau-bench's retail customers, and the model that plays the customer, as one run.

Both are plain loops on the OpenAI SDK: each answer of either is one step of the run. It ends with what the shop
says of it: REWARD 1 where the orders are as they should be and all was told that was asked, else REWARD 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import httpx2
from openai import DefaultHttpxClient, OpenAI
from tau_tools import Shop, opened

Message: TypeAlias = dict[str, Any]

CUSTOMER = """\
You are a customer who writes to a shop's assistant. What you want, and all that you know:
{instruction}

Write one message at a time, short and natural, as this person would. Tell only what is needed for the next step.
Make nothing up that is not said above; say that you do not remember. When all that you want is done, or you are
handed over to somebody else, write ###STOP### and nothing after it."""
GREETING = "Hi! How can I help you today?"
STOP = "###STOP###"
HANDED_OVER = "transfer_to_human_agents"
MOST_ACTIONS = 30
"""Answers of the assistant, as in tau-bench."""


class _Scripted:
    """Recorded answers in the provider's place, in their order."""

    answers: Iterator[Message] | None = None


@contextmanager
def answered(by: Iterable[Message]) -> Iterator[None]:
    """Within the block models say what is recorded, wherever the client's URL points: nothing is sent."""
    _Scripted.answers = iter(by)
    try:
        yield
    finally:
        _Scripted.answers = None


def play(task: Mapping[str, Any], where: str) -> str:
    """Serve one customer in the shop there, and return its reward with the reason."""
    shop, told = opened(where), list[str]()
    with _client() as client:
        _talk(client, task, shop, told)
    return reward(task, where, shop, told)


def _client() -> OpenAI:
    if _Scripted.answers is None:
        return OpenAI()
    return OpenAI(http_client=DefaultHttpxClient(transport=httpx2.MockTransport(_recorded)))


def _recorded(request: httpx2.Request) -> httpx2.Response:
    assert _Scripted.answers is not None
    message = next(_Scripted.answers, None)
    if message is None:  # the agent went on where the recorded run ended
        return httpx2.Response(400, json={"error": {"message": "the recorded run ended here"}})
    said = {name: message[name] for name in ("content", "tool_calls") if message.get(name)}
    # About what it took; the trajectories do not say.
    used = {"prompt_tokens": len(request.content) // 4, "completion_tokens": len(json.dumps(said)) // 4}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": None, **said},
        "finish_reason": "tool_calls" if "tool_calls" in said else "stop",
    }
    body = {
        "id": "chatcmpl-recorded",
        "object": "chat.completion",
        "created": 0,
        "model": json.loads(request.content)["model"],
        "choices": [choice],
        "usage": {**used, "total_tokens": sum(used.values())},
    }
    return httpx2.Response(200, json=body)


def _talk(client: OpenAI, task: Mapping[str, Any], shop: Shop, told: list[str]) -> None:
    """Let customer and assistant talk until one ends it; `told` gets all that the assistant said."""
    talk: list[Message] = [{"role": "system", "content": task["policy"]}]
    wish = CUSTOMER.format(instruction=task["instruction"])
    customer: list[Message] = [{"role": "system", "content": wish}, {"role": "user", "content": GREETING}]
    actions = 0
    while True:
        said = _answer(client, task["user_model"], customer)["content"] or ""
        customer.append({"role": "assistant", "content": said})
        talk.append({"role": "user", "content": said})
        while True:
            if STOP in said or actions == MOST_ACTIONS:
                return
            actions += 1
            message = _answer(client, task["model"], talk, tools=shop.schemas)
            talk.append(message)
            if "tool_calls" not in message:
                told.append(message["content"] or "")
                customer.append({"role": "user", "content": told[-1]})
                break
            call = message["tool_calls"][0]
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            result = shop.call(name, arguments)
            talk.append({"role": "tool", "tool_call_id": call["id"], "name": name, "content": result})
            if name == HANDED_OVER:
                return


def _answer(client: OpenAI, model: str, messages: Sequence[Message], **more: Any) -> Message:
    """Return the model's message, with one tool call at most, as tau-bench has it."""
    # pyright: the SDK's types of messages say less than plain dicts do here.
    answer = client.chat.completions.create(model=model, messages=list(messages), **more)  # type: ignore[arg-type]
    said = answer.choices[0].message
    message: Message = {"role": "assistant", "content": said.content}
    if said.tool_calls:
        message["tool_calls"] = [said.tool_calls[0].model_dump()]
    return message


def reward(task: Mapping[str, Any], where: str, shop: Shop, told: Sequence[str]) -> str:
    """Return REWARD 1 or REWARD 0 and why, by the orders as they are and what the customer was told."""
    goal = opened(where)
    for action in task["actions"]:
        if action["name"] != HANDED_OVER:
            goal.call(action["name"], json.dumps(action["kwargs"]))
    spoken = [text.lower().replace(",", "") for text in told]
    lacking = [one for one in task["outputs"] if not any(one.lower() in text for text in spoken)]
    why = [] if shop.state() == goal.state() else ["the orders are not as they should be"]
    why += [f"{', '.join(lacking)} was never told"] if lacking else []
    return f"REWARD 0: {'; '.join(why)}" if why else "REWARD 1"
