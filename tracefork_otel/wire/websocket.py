"""A websocket's messages as the body of its exchange: one line of JSON each, which is one chunk."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from ..exchange import Exchange

Side: TypeAlias = Literal["agent", "server"]
SWITCHING = 101


@dataclass(frozen=True, slots=True)
class Message:
    """What one side said."""

    sender: Side
    data: str | bytes | None
    """Text, or binary; None where it closed the connection."""
    code: int | None = None
    """With which code it closed it."""
    reason: str = ""

    def line(self) -> bytes:
        """Return the line that stands for it in the body."""
        said: dict[str, Any] = {"from": self.sender}
        if isinstance(self.data, str):
            said["text"] = self.data
        elif self.data is not None:
            said["base64"] = base64.b64encode(self.data).decode()
        else:
            said |= {"close": self.code, "reason": self.reason}
        return json.dumps(said, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def is_websocket(exchange: Exchange) -> bool:
    """Return whether the exchange is a websocket's connection, whose body is its messages."""
    response = exchange.response
    return (
        response is not None
        and response.status == SWITCHING
        and exchange.request.url.startswith(("ws://", "wss://"))
    )


def messages(lines: Iterator[bytes] | tuple[bytes, ...]) -> list[Message]:
    """Return what was said, in order; ValueError for a line that is none of ours."""
    return [_message(json.loads(line)) for line in lines]


def _message(said: Any) -> Message:
    fields = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    sender = fields.get("from")
    if sender not in ("agent", "server"):
        raise ValueError("a line of a websocket names no sender")
    if isinstance(text := fields.get("text"), str):
        return Message(sender, text)
    if isinstance(data := fields.get("base64"), str):
        return Message(sender, base64.b64decode(data, validate=True))
    code = fields.get("close")
    return Message(sender, None, code if isinstance(code, int) else None, str(fields.get("reason", "")))
