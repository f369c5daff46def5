"""Writes the time, an id and a random number into its prompts: it replays only with what it drew."""

from __future__ import annotations

import random
import time
import uuid
from datetime import UTC, datetime

import httpx2
from wire import ask, client

from tracefork_otel import tool


@tool
def ticket(prefix: str) -> str:
    """A number that no replay would draw again."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


if __name__ == "__main__":
    with client(httpx2) as asking:
        for number in range(2):
            said = f"{datetime.now(UTC).isoformat()} {uuid.uuid4()} {random.random()} {time.time():.3f}"
            message = {"role": "user", "content": f"Turn {number}, ticket {ticket('T')}: {said}"}
            answer = ask(
                asking,
                "https://api.anthropic.com/v1/messages",
                {"model": "claude-haiku-4-5", "max_tokens": 64, "messages": [message]},
            )
            print(answer["content"][0]["text"])
