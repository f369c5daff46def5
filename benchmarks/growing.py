"""Conversations of short messages that go on for thousands of calls, made without writing each request anew."""

from __future__ import annotations

import random
from collections.abc import Iterator

from workload import MODEL, dumps, text

MESSAGE = 80
"""Bytes of text in each message: many calls, little in each."""


def growing(calls: int, *, seed: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """Request and response bodies of a conversation in which each call adds two messages."""
    rng = random.Random(seed)
    head = b'{"model":' + dumps(MODEL) + b',"max_tokens":1024,"messages":['
    messages = bytearray(dumps({"role": "user", "content": text(rng, MESSAGE)}))
    for call in range(calls):
        request = head + messages + b"]}"
        answer = text(rng, MESSAGE)
        yield (
            bytes(request),
            dumps(
                {
                    "id": f"msg_{call:08x}", "type": "message", "role": "assistant", "model": MODEL,
                    "content": [{"type": "text", "text": answer}], "stop_reason": "end_turn", "stop_sequence": None,
                    "usage": {"input_tokens": len(request) // 4, "output_tokens": MESSAGE // 4},
                }
            ),
        )  # fmt: skip
        said = ({"role": "assistant", "content": answer}, {"role": "user", "content": text(rng, MESSAGE)})
        messages += b"," + b",".join(map(dumps, said))
