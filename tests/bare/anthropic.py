"""What the examples use of Anthropic's SDK, over bare HTTP, so that an agent starts in a tenth of the time.

First on PYTHONPATH it is the `anthropic` of agents in tests that are about our commands, not about the SDK.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx2


class Anthropic:
    """A client whose one resource is `messages`."""

    def __init__(self, *, base_url: str | None = None, api_key: str | None = None) -> None:
        self.messages = self
        self._http = httpx2.Client(
            base_url=base_url or os.environ["ANTHROPIC_BASE_URL"],
            headers={"x-api-key": api_key or os.environ["ANTHROPIC_API_KEY"]},
            timeout=60,
        )

    @contextmanager
    def stream(self, **asked: Any) -> Iterator[Stream]:
        """Yield a streamed answer."""
        with self._http.stream("POST", "/v1/messages", json={**asked, "stream": True}) as response:
            response.raise_for_status()
            yield Stream(response)


class Stream:
    """An answer that comes as server-sent events."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response

    def get_final_message(self) -> Message:
        """Return the message, after all of its events."""
        blocks: list[dict[str, Any]] = []
        told: list[str] = []
        for line in self._response.iter_lines():
            event = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            if event.get("type") == "content_block_start":
                blocks.append(event["content_block"])
                told.append("")
            elif event.get("type") == "content_block_delta":
                told[-1] += event["delta"].get("text") or event["delta"].get("partial_json") or ""
        for block, text in zip(blocks, told, strict=True):
            block |= {"text": text} if block["type"] == "text" else {"input": json.loads(text or "{}")}
        return Message(blocks)


class Message:
    """An assistant's turn."""

    def __init__(self, blocks: list[dict[str, Any]]) -> None:
        self._blocks = blocks
        self.content = [SimpleNamespace(**block) for block in blocks]

    def to_param(self) -> dict[str, Any]:
        """Return the turn as the next request repeats it."""
        return {"role": "assistant", "content": self._blocks}
