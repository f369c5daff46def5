"""The conversations in `otel/wire/samples`, one a wire form, as its provider sends it, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tracefork_otel.exchange import Request, Response
from tracefork_otel.wire.facts import facts
from tracefork_otel.wire.forms import FORMS
from tracefork_otel.wire.framing import Event, Framing
from tracefork_otel.wire.growing import Growing, Grown
from tracefork_otel.wire.messages import Asked, Facts, Message
from tracefork_otel.wire.registry import load

NAMES = [form.name for form in FORMS]
each = pytest.mark.parametrize("name", NAMES)


@cache
def sample(name: str) -> dict[str, Any]:
    """The conversation of a form."""
    return json.loads((Path(__file__).parent / "otel/wire/samples" / f"{name}.json").read_text())


def ways(*, whole: bool = True, names: Sequence[str] = NAMES) -> list[Any]:
    """Each form, whole and by each of its framings, as (name, which of its streams or None)."""
    found = []
    for name in names:
        numbers = [*([None] if whole else []), *range(len(sample(name)["streamed"]))]
        found += [pytest.param(name, at, id=f"{name}-{'whole' if at is None else at}") for at in numbers]
    return found


WAY = ("name", "at")
each_way = pytest.mark.parametrize(WAY, ways())
each_stream = pytest.mark.parametrize(WAY, ways(whole=False))


def has_tools(name: str) -> bool:
    """Whether the form has tools, and turns to speak of them in."""
    return sample(name).get("tools", True)


each_with_tools = pytest.mark.parametrize("name", [name for name in NAMES if has_tools(name)])
each_with_turns = pytest.mark.parametrize("name", [name for name in NAMES if load(name).TURNS])
each_way_with_tools = pytest.mark.parametrize(WAY, [one for one in ways() if has_tools(one.values[0])])


def asked(name: str, at: int | None) -> Request:
    """The request of the sample, as the way asks for it."""
    given = sample(name)
    if at is None:
        return Request(method="POST", url=given["url"], body=dumped(given["request"]))
    one = given["streamed"][at]
    return Request(method="POST", url=one["url"], body=dumped(given["request"] | one["request"]))


def dumped(value: Any) -> bytes:
    """The JSON as a client sends it."""
    return json.dumps(value, ensure_ascii=False).encode()


def framing(name: str, at: int) -> Framing:
    """How the reply of that way is streamed."""
    request = asked(name, at)
    found = load(name).streams(request.url, json.loads(request.body))
    assert found is not None
    return found


def events(name: str) -> list[Event]:
    """The events of the sample's stream."""
    return [
        Event(kind, data.encode() if isinstance(data, str) else dumped(data))
        for kind, data in sample(name)["stream"]
    ]


def answered(name: str, at: int | None) -> Response:
    """The sample's reply, as it was asked for."""
    if at is None:
        kind, chunks = "application/json", [dumped(sample(name)["reply"])]
    else:
        kind, chunks = framing(name, at).content_type, framing(name, at).write(events(name))
    body = b"".join(chunks)
    return Response(
        status=200, headers=(("content-type", kind),), body=body, chunk_sizes=tuple(map(len, chunks))
    )


def read(request: Request, response: Response | None) -> Facts:
    """The facts of an exchange."""
    found = facts(
        request.method,
        request.url,
        request=request.body,
        response=None if response is None else response.body,
        content_type=None if response is None else response.header("content-type"),
    )
    assert found is not None
    return found


def request_messages(form: str, body: bytes) -> tuple[Message, ...]:
    """The messages of a request that repeats no other."""
    return messages_by(Growing(), form, body)


def messages_by(growing: Growing[Asked], form: str, body: bytes) -> tuple[Message, ...]:
    """The messages of a request that may repeat an earlier one, each turn from whichever of them had it."""

    def make(grown: Grown[Asked]) -> Asked:
        earlier = grown.before.turns[: grown.kept] if grown.before is not None else ()
        assert grown.turns[: grown.kept] == earlier
        return Asked(grown.system, (*earlier, *grown.turns[grown.kept :]))

    found = growing.read(form, body, make)
    return () if found is None else found.messages


def calls(found: Facts) -> list[tuple[str | None, Any]]:
    """The tool calls of a reply, as (name, input)."""
    return [(one.name, json.loads(one.content)) for one in found.reply if one.kind == "tool_use"]


def told(messages: Any) -> list[list[str | None]]:
    """Messages as in a sample."""
    return [[one.role, one.kind, one.name, one.content] for one in messages]
