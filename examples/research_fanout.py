"""A research agent: six questions asked at once, then one call that puts the answers together.

    python examples/research_fanout.py
    tracefork-otel run -- python examples/research_fanout.py

The answers come in whatever order the model ends them; a replay does not depend on it. Without
ANTHROPIC_API_KEY or ANTHROPIC_BASE_URL it talks to a scripted model on this machine.
"""

import asyncio
import contextlib
import os
import sys

from anthropic import AsyncAnthropic

MODEL = "claude-haiku-4-5"
ASPECTS = ("history", "cost", "risk", "regulation", "market", "future")


async def ask(client: AsyncAnthropic, prompt: str) -> str:
    message = await client.messages.create(
        model=MODEL,
        max_tokens=512,
        system="Answer in one sentence.",
        messages=[{"role": "user", "content": prompt}],
    )
    return "".join(block.text for block in message.content if block.type == "text")


async def gather(topic: str) -> str:
    async with AsyncAnthropic() as client:
        questions = [f"What is known about the {aspect} of {topic}?" for aspect in ASPECTS]
        answers = await asyncio.gather(*(ask(client, question) for question in questions))
        findings = "\n".join(f"{number}. {answer}" for number, answer in enumerate(answers, 1))
        return await ask(client, f"Put these findings about {topic} together:\n{findings}")


def research(topic: str) -> str:
    return asyncio.run(gather(topic))


if __name__ == "__main__":
    with contextlib.ExitStack() as stack:
        if not os.environ.keys() & {"ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"}:
            from tracefork_backend.simulate import spawn

            os.environ["ANTHROPIC_BASE_URL"] = stack.enter_context(spawn("research", file=__file__))
        os.environ.setdefault("ANTHROPIC_API_KEY", "not needed")
        print(research(" ".join(sys.argv[1:]) or "solid-state batteries"))
