"""Agent conversations in the Anthropic wire format: every request repeats the whole history, as real ones do.

The text is made of syllables with zipf-like frequencies, some numbers and punctuation; it compresses about as well as prose.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import cache

TURN = 1500
"""New text in each exchange, bytes: a quarter said by the model, an eighth its arguments, the rest the tool's result."""
TOOLS = 20_000
"""Tool schemas in each request, bytes."""
MODEL = "claude-sonnet-4-6"


@cache
def vocabulary() -> tuple[str, ...]:
    rng = random.Random(7)
    pieces = [c + v for c in "bcdfghjklmnprstvwz" for v in "aeiou"]
    return tuple(
        "".join(rng.choice(pieces) for _ in range(rng.randint(1, 4))) + rng.choice(["", "n", "s", "r", "t"])
        for _ in range(6000)
    )


def text(rng: random.Random, size: int) -> str:
    words = vocabulary()
    made: list[str] = []
    length = 0
    while length < size:
        roll = rng.random()
        word = words[int(len(words) * rng.random() ** 2.2)]
        if roll < 0.08:
            word = str(rng.randrange(10**6))
        elif roll < 0.13:
            word += rng.choice([".", ",", '"', " é", "\n"])
        made.append(word)
        length += len(word) + 1
    return " ".join(made)[:size]


@cache
def tools(size: int = TOOLS) -> tuple[dict, ...]:
    rng = random.Random(11)
    made: list[dict] = []
    while len(json.dumps(made)) < size:
        properties = {
            f"p{at}": {"type": rng.choice(["string", "integer"]), "description": text(rng, 60)}
            for at in range(6)
        }
        made.append(
            {
                "name": f"tool_{len(made)}",
                "description": text(rng, 500),
                "input_schema": {"type": "object", "properties": properties, "required": ["p0", "p1"]},
            }
        )
    return tuple(made)


def dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def conversation(
    exchanges: int, *, seed: int = 0, turn: int = TURN, tool_bytes: int = TOOLS
) -> Iterator[tuple[bytes, bytes]]:
    """Request and response bodies of a growing conversation."""
    rng = random.Random(seed)
    available = list(tools(tool_bytes)) if tool_bytes else []
    system = text(rng, 2500)
    messages: list[dict] = [{"role": "user", "content": text(rng, 600)}]
    for _ in range(exchanges):
        request = dumps(
            {"max_tokens": 4096, "messages": messages, "model": MODEL, "system": system, "tools": available}
        )
        call = f"toolu_{rng.getrandbits(96):024x}"
        content = [
            {"type": "text", "text": text(rng, turn // 4)},
            {
                "type": "tool_use",
                "id": call,
                "name": f"tool_{rng.randrange(max(1, len(available)))}",
                "input": {"p0": text(rng, turn // 8), "p1": rng.randrange(10**5)},
            },
        ]
        yield (
            request,
            dumps(
                {
                    "id": f"msg_{rng.getrandbits(96):024x}",
                    "type": "message",
                    "role": "assistant",
                    "model": MODEL,
                    "content": content,
                    "stop_reason": "tool_use",
                    "stop_sequence": None,
                    "usage": {"input_tokens": len(request) // 4, "output_tokens": turn // 12},
                }
            ),
        )
        result = {"type": "tool_result", "tool_use_id": call, "content": text(rng, turn * 5 // 8)}
        messages = [
            *messages,
            {"role": "assistant", "content": content},
            {"role": "user", "content": [result]},
        ]
