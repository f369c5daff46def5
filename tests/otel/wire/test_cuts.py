"""A conversation cut body by body has the pieces of each body alone, and reads each message once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracefork_otel.wire import cuts
from tracefork_otel.wire.cuts import Cutter, cut

MESSAGES: list[Any] = [{"role": "user", "content": ""}, {"a": [1, {"b": 2}]}, 3, "s", [{"q": 1}], None]


@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 1),
            st.integers(0, 6),
            st.lists(st.sampled_from(MESSAGES), max_size=3),
            st.integers(0, 3),
            st.sampled_from([(",", ":"), (", ", ": ")]),
            st.sampled_from([0, 0, 0, 1, 3]),
        ),
        max_size=8,
    )
)
def test_what_was_cut_before_changes_nothing(steps: list[tuple[Any, ...]]) -> None:
    """Whichever conversation goes on, from wherever, laid out in whatever way, whole or cut off."""
    cutter, known = Cutter(), list[list[bytes]]()
    conversations: list[list[Any]] = [[], []]
    for which, kept, more, layout, separators, lost in steps:
        said = conversations[which]
        said[kept:] = more
        tools = [{"name": f"t{at}"} for at in range(kept % 3)]
        request = (
            {"messages": said, "tools": tools},
            {"tools": tools, "messages": said},
            {"model": "m", "messages": said},
            {"system": [{"t": kept}], "messages": said, "z": 1},
        )[layout]
        body = json.dumps(request, separators=separators).encode()
        body = body[: len(body) - lost]
        earlier, kept, new = cutter.cut(body)
        pieces = [*(known[earlier][:kept] if kept else ()), *new]
        known.append(pieces)
        assert pieces == cut(body)
        assert b"".join(pieces) == body


def test_each_message_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is parsed of a conversation is by its length, whatever stands behind the messages."""
    parsed: list[int] = []
    whole = cuts._is_json
    monkeypatch.setattr(cuts, "_is_json", lambda body: parsed.append(len(body)) or whole(body))
    cutter, said = Cutter(), list[dict[str, str]]()
    for step in range(100):
        said.append({"role": "user", "content": f"message {step} " + "x" * 100})
        cutter.cut(json.dumps({"messages": said, "step": step}).encode())
    assert max(parsed) < 600
