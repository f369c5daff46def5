"""Chunks give every body back, and a conversation's history is stored once."""

from __future__ import annotations

import random
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wal_samples import bodies
from wal_strategies import body_bytes

from tracefork_otel.store.chunks import LARGEST, Chunked, Chunks, cut


def settled(added: list[Chunked], chunks: Chunks) -> tuple[list[bytes], list[list[int]]]:
    """The chunks in final order, and each body's parts."""
    data, parts = chunks.settle()
    return data, [parts[one.number] for one in added]


def numbers_of(parts: list[int]) -> list[int]:
    """The numbers in runs of numbers."""
    return [n for first, last in zip(parts[::2], parts[1::2], strict=True) for n in range(first, last + 1)]


def joined(data: list[bytes], parts: list[int]) -> bytes:
    """The body of these parts."""
    return b"".join(data[number] for number in numbers_of(parts))


@given(body_bytes | st.binary(max_size=300).map(lambda part: part * 150))
def test_the_pieces_of_a_body_are_the_body(body: bytes) -> None:
    """Cutting loses nothing, and no piece is larger than allowed."""
    pieces = cut(body)
    assert b"".join(pieces) == body
    assert all(0 < len(piece) <= LARGEST + 3 for piece in pieces)


@st.composite
def edited_bodies(draw: st.DrawFn) -> list[tuple[bytes, str, bool]]:
    """Bodies that come from one another by edits, their conversation, and whether it is a response."""
    found: list[tuple[bytes, str, bool]] = []
    body = draw(body_bytes)
    for _ in range(draw(st.integers(1, 8))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, len(body)))
        body = body[:start] + draw(body_bytes) + body[end:]
        found.append((body, draw(st.sampled_from("ab")), draw(st.booleans())))
    return found


@given(edited_bodies())
def test_every_body_comes_back(items: list[tuple[bytes, str, bool]]) -> None:
    """Whatever was added, in whatever order, is joined again byte for byte."""
    chunks = Chunks()
    added = [(chunks.add_alone if alone else chunks.add)(body, name) for body, name, alone in items]
    data, parts = settled(added, chunks)
    assert [joined(data, part) for part in parts] == [body for body, _, _ in items]
    assert [(one.length, one.sha256) for one in added] == [
        (len(body), sha256(body).digest()) for body, _, _ in items
    ]
    for response in (False, True):
        used = [
            n
            for part, item in zip(parts, items, strict=True)
            if item[2] is response
            for n in numbers_of(part)
        ]
        assert len({data[number] for number in used}) == len(set(used))


@pytest.mark.parametrize("agents", [1, 8])
def test_a_conversation_costs_its_new_text(agents: int) -> None:
    """Chunks hold each text once, and a body stays a few runs, however many conversations interleave."""
    chunks = Chunks()
    conversations = [list(bodies(40, seed=seed)) for seed in range(agents)]
    added: list[Chunked] = []
    asked: list[bytes] = []
    for turn in range(40):
        for name, conversation in enumerate(conversations):
            request, response = conversation[turn]
            added += [chunks.add(request, str(name)), chunks.add_alone(response, str(name))]
            asked += [request, response]
    data, parts = settled(added, chunks)
    assert [joined(data, part) for part in parts] == asked
    # The last request of each holds all it ever said; its responses come once more, as they were on the wire.
    new = sum(
        len(conversation[-1][0]) + sum(len(response) for _, response in conversation)
        for conversation in conversations
    )
    assert sum(map(len, data)) < 1.1 * new
    assert max(map(len, parts)) <= 12


def test_an_edit_inside_a_large_body_costs_a_part_of_it() -> None:
    """Of half a megabyte without structure, a change in the middle stores some pieces anew, not all."""
    rng = random.Random(3)
    before = rng.randbytes(500_000)
    after = before[:250_000] + b"new" + before[250_100:]
    pieces = set(cut(before))
    assert sum(len(piece) for piece in cut(after) if piece not in pieces) < 40_000


def test_text_stays_text() -> None:
    """No cut parts a character in two."""
    body = ("é→𝄞 wörter s p g" * 20_000).encode()
    pieces = cut(body)
    assert len(pieces) > 10
    assert "".join(piece.decode() for piece in pieces).encode() == body
