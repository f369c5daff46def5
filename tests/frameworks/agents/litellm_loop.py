"""A loop of the agent's own over litellm, with no line of ours; `async` as its argument makes async calls."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # its price list comes over the network

import litellm

PEOPLE = {"Lima": "10092000", "Quito": "1763000", "Oslo": "717710"}
POPULATION = {
    "type": "function",
    "function": {
        "name": "population",
        "description": "How many people live in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


async def conversation(question: str, model: str, asynchronous: bool) -> str:
    """The answer of the model, which asked the tool."""
    messages: list[Any] = [{"role": "user", "content": question}]
    while True:
        asked: dict[str, Any] = {"model": model, "messages": messages, "tools": [POPULATION]}
        answer: Any = await litellm.acompletion(**asked) if asynchronous else litellm.completion(**asked)
        message = answer.choices[0].message
        if not message.tool_calls:
            return message.content
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            city = json.loads(call.function.arguments)["city"]
            messages.append({"role": "tool", "tool_call_id": call.id, "content": PEOPLE[city]})


def agent(model: str, asynchronous: bool) -> str:
    """The same, from code that is not asynchronous."""
    return asyncio.run(conversation("How many people live in Lima and in Quito?", model, asynchronous))


if __name__ == "__main__":
    print(agent(sys.argv[1], "async" in sys.argv))
