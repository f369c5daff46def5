"""Asks twice; the model never answers the second time, and somebody kills the process."""

from __future__ import annotations

import httpx2
from wire import ask, client

if __name__ == "__main__":
    with client(httpx2) as asking:
        for text in ("Good morning", "Wait for me"):
            ask(
                asking,
                "https://api.anthropic.com/v1/messages",
                {
                    "model": "claude-haiku-4-5",
                    "max_tokens": 64,
                    "messages": [{"role": "user", "content": text}],
                },
            )
