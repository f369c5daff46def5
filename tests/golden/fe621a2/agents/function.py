"""An agent that is a function: recorded by one line of its own, and called again by its module's path."""

from __future__ import annotations

import sys

import httpx
from wire import ask, client, keep_intervention

import tracefork_otel


@tracefork_otel.agent
def plan(city: str, *, days: int = 2) -> dict[str, object]:
    """A plan for a stay, asked for day by day."""
    keep_intervention()
    with client(httpx) as asking:
        said = [
            ask(
                asking,
                "https://api.anthropic.com/v1/messages",
                {
                    "model": "claude-haiku-4-5",
                    "max_tokens": 64,
                    "messages": [{"role": "user", "content": f"Day {day} in {city}?"}],
                },
            )["content"][0]["text"]
            for day in range(1, days + 1)
        ]
    return {"city": city, "days": said}


if __name__ == "__main__":
    tracefork_otel.TraceforkInstrumentor().instrument()
    print(plan("Oslo", days=int(sys.argv[1])))
