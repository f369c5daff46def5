"""A loop of the agent's own over the Anthropic SDK's async streaming helper, with no line of ours."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic

PEOPLE = {"Lima": "10092000", "Quito": "1763000", "Oslo": "717710"}
POPULATION: Any = {
    "name": "population",
    "description": "How many people live in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


async def conversation(question: str) -> str:
    """The answer of the model, which asked the tool; its text was read as it came."""
    messages: list[Any] = [{"role": "user", "content": question}]
    async with anthropic.AsyncAnthropic(max_retries=0) as client:
        while True:
            async with client.messages.stream(
                model="claude-haiku-4-5", max_tokens=300, tools=[POPULATION], messages=messages
            ) as stream:
                said = "".join([text async for text in stream.text_stream])
                message = await stream.get_final_message()
            calls = [block for block in message.content if block.type == "tool_use"]
            if not calls:
                return said
            messages += [
                {"role": "assistant", "content": [block.to_dict() for block in message.content]},
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": call.id,
                            "content": PEOPLE[str(call.input["city"])],
                        }
                        for call in calls
                    ],
                },
            ]


def agent(question: str = "How many people live in Lima and in Quito?") -> str:
    """The same, from code that is not asynchronous."""
    return asyncio.run(conversation(question))


if __name__ == "__main__":
    print(agent())
