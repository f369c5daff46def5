"""What an assistant reads: small, whole JSON, with the rest reachable."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tracefork_backend.mcp.answers import BYTES, piece, rows

TEXTS = (
    st.text(max_size=30)
    | st.integers(1, 6000).map(lambda n: "é" * n)
    | st.integers(1, 6000).map("\x85".__mul__)
)
ROWS = st.lists(
    st.dictionaries(st.text(max_size=5), TEXTS | st.none() | st.integers(), max_size=40), max_size=30
)


@given(ROWS, st.dictionaries(st.sampled_from("abcdef"), TEXTS))
def test_every_row_is_reached_in_small_answers(found: list[dict[str, Any]], head: dict[str, Any]) -> None:
    """Following `next_offset` ends, shows each row once, and no answer is larger than 4 KB."""
    at, seen = 0, 0
    while True:
        answer = rows("rows", found[at:], at, more=False, **head)
        assert len(answer.encode()) <= BYTES
        told = json.loads(answer)
        seen += len(told["rows"])
        if "next_offset" not in told:
            break
        assert told["next_offset"] > at
        at = told["next_offset"]
    assert seen == len(found)


@given(TEXTS)
def test_a_text_is_read_on_to_its_end(text: str) -> None:
    """Its pieces, put together, are the text."""
    whole, at = "", 0
    while True:
        answer = piece(text, at, run="r")
        assert len(answer.encode()) <= BYTES
        told = json.loads(answer)
        whole += told["text"]
        if "next_offset" not in told:
            break
        at = told["next_offset"]
    assert whole == text
