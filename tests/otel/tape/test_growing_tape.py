"""A tape whose conversations grow is read, played and written by what is new in each request."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracefork_otel import Player, Tape
from tracefork_otel.errors import TapeError
from tracefork_otel.exchange import (
    Exchange,
    Request,
    Response,
    StoredRequest,
    beside_body,
    request_of,
)
from tracefork_otel.play.answers import Served
from tracefork_otel.store import pieces
from tracefork_otel.tape import digest, layout, reading
from tracefork_otel.tape.layout import Layout
from tracefork_otel.wire.cuts import cut

RUN = "ab" * 16
URL = "https://api.anthropic.com/v1/messages"


def tape_of(bodies: Sequence[bytes]) -> Tape:
    """A tape with these requests, each answered."""
    answer = Response(status=200, body=b'{"ok":true}', chunk_sizes=(11,), chunk_offsets_us=(1,))
    return Tape(
        run_id=RUN,
        exchanges=tuple(
            Exchange(
                trace_id=RUN,
                span_id=f"{step:016x}",
                parent_span_id=None,
                process_id="1-00000000",
                seq=step,
                started_ns=step,
                ended_ns=step + 1,
                request=Request(method="POST", url=URL, body=body),
                response=answer,
                outcome="complete",
            )
            for step, body in enumerate(bodies)
        ),
    )


def growing(calls: int, name: str = "m", **beside: Any) -> list[bytes]:
    """Requests of a chat, with members before and behind its messages."""
    said: list[dict[str, str]] = []
    made: list[bytes] = []
    for call in range(calls):
        said.append({"role": "user", "content": f"{name} asks {call}"})
        made.append(json.dumps({"model": name, "messages": said, "n": call, **beside}).encode())
        said.append({"role": "assistant", "content": f"{name} says {call}"})
    return made


def one_after_the_other(calls: int) -> list[bytes]:
    """Two conversations, each whole before the next."""
    return [*growing(calls), *growing(calls, "n", tools=[{"name": "t"}])]


def taking_turns(calls: int) -> list[bytes]:
    """Two conversations in turn, each request asked twice."""
    both = zip(growing(calls), growing(calls, "n", tools=[{"name": "t"}]), strict=True)
    return [body for pair in both for body in pair for _ in range(2)]


def cut_back(calls: int) -> list[bytes]:
    """A conversation that forgets its second half now and then."""
    made = growing(calls)
    return [made[at if at % 10 else at // 2] for at in range(calls)]


@pytest.mark.parametrize("layout_of", [growing, one_after_the_other, taking_turns, cut_back])
def test_reading_playing_and_writing_take_what_is_new(
    layout_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines decoded, bytes hashed for each body's own digest, and pieces given a line: all by the text."""
    hashed, decoded, numbered = [0], [0], [0]

    class Counted:
        def __init__(self, data: bytes | memoryview = b"", state: Any = None) -> None:
            self.state = sha256() if state is None else state
            self.update(data)

        def update(self, data: bytes | memoryview) -> None:
            hashed[0] += len(data)
            self.state.update(data)

        def copy(self) -> Counted:
            return Counted(state=self.state.copy())

        def digest(self) -> bytes:
            return self.state.digest()

    def counts(tape: Tape) -> tuple[int, int, int]:
        monkeypatch.setattr(reading, "AT_ONCE", 0)
        data = tape.to_bytes()
        hashed[0] = decoded[0] = numbered[0] = 0
        read = Tape.from_bytes(data)
        assert {type(one.request) for one in read.exchanges} == {StoredRequest}
        player = Player(read)
        assert read.to_bytes() == data
        found = hashed[0], decoded[0], numbered[0]
        assert read == tape
        for step, one in enumerate(tape.exchanges):
            answer = player.answer(one.request)
            assert isinstance(answer, Served)
            assert tape.exchanges[answer.step].request == one.request, step
        return found

    decode, number = reading.decode_piece, Layout._numbered
    monkeypatch.setattr(pieces, "sha256", Counted)
    monkeypatch.setattr(
        reading, "decode_piece", lambda line: decoded.__setitem__(0, decoded[0] + 1) or decode(line)
    )
    monkeypatch.setattr(
        layout.Layout,
        "_numbered",
        lambda self, new: numbered.__setitem__(0, numbered[0] + len(new)) or number(self, new),
    )
    few, many = counts(tape_of(layout_of(20))), counts(tape_of(layout_of(80)))
    assert all(more <= 8 * less for less, more in zip(few, many, strict=True)), (few, many)


MESSAGE = st.sampled_from([b'{"role":"user"}', b'{"a":1}', b'{"b":[2]}', b"3"])
BODY = st.one_of(
    st.tuples(
        st.lists(MESSAGE, max_size=6), st.sampled_from([b"]}", b'],"n":1}', b"]", b'],"t":[{"x":1}]}'])
    ).map(lambda made: b'{"messages":[' + b",".join(made[0]) + made[1]),
    st.sampled_from([b"", b"x", b"data: a\n\ndata: b\n\n", b"\xff"]),
)


def plainly(requests: Sequence[bytes], responses: Sequence[bytes]) -> tuple[list[bytes], list[list[int]]]:
    """What a layout settles on, told without any sharing: bodies in the order of their pieces' numbers."""
    bodies = [cut(body) for body in requests]
    seen: dict[bytes, int] = {}
    first_seen = [[seen.setdefault(piece, len(seen)) for piece in body] for body in bodies]
    order = sorted(range(len(bodies)), key=first_seen.__getitem__)
    lines: dict[bytes, int] = {}
    answers = [cut(body) for body in responses]
    for piece in (piece for body in (*(bodies[at] for at in order), *answers) for piece in body):
        lines.setdefault(piece, len(lines) + 2)
    return list(lines), [[lines[piece] for piece in body] for body in (*bodies, *answers)]


@given(st.lists(BODY, max_size=12), st.lists(BODY, max_size=3))
def test_lines_are_those_of_bodies_told_in_full(requests: list[bytes], responses: list[bytes]) -> None:
    """Whatever bodies repeat of each other, each piece has the line that it had without that."""
    found = Layout(first_line=2)
    numbers = [*map(found.request, requests), *map(found.response, responses)]
    chunks, runs = found.settle()
    lines = [
        [line for first, last in zip(flat[::2], flat[1::2], strict=True) for line in range(first, last + 1)]
        for flat in (runs[number] for number in numbers)
    ]
    assert (chunks, lines) == plainly(requests, responses)


def test_the_chain_is_computed_once_of_the_same_exchanges(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tape that was read is asked for its digest and written without it; other exchanges have their own."""
    read = Tape.from_bytes(tape_of(growing(6)).to_bytes())
    linked: list[Exchange] = []
    link = digest.chain
    monkeypatch.setattr(
        digest, "chain", lambda before, one, form: linked.append(one) or link(before, one, form)
    )
    data = replace(read, mark="00").to_bytes()
    assert (linked, read.digest == Tape.from_bytes(data).digest) == ([], True)
    shorter = replace(read, exchanges=read.exchanges[:-1])
    assert shorter.digest == tape_of(growing(5)).digest != read.digest
    assert len(linked) == 5 + 5 + 6


def test_a_changed_line_is_named_by_the_first_body_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each digest is checked, though only what is new is read for it."""
    monkeypatch.setattr(reading, "AT_ONCE", 0)
    data = tape_of(growing(30)).to_bytes()
    with pytest.raises(
        TapeError, match=r"the request body of step 21 \(lines .*\) does not match its sha256"
    ):
        Tape.from_bytes(data.replace(b"m says 20", b"m said 20"))


def test_a_body_that_is_put_together_is_told_as_one_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its length, its digests, and those of a request made of it with another body."""
    tape = tape_of(growing(5))
    monkeypatch.setattr(reading, "AT_ONCE", 0)
    for late, whole in zip(Tape.from_bytes(tape.to_bytes()).exchanges, tape.exchanges, strict=True):
        assert late.request.length == whole.request.length == len(whole.request.body)
        assert late.request.sha256 == sha256(whole.request.body).hexdigest()
        assert (
            late.request.digest(b"x")
            == whole.request.digest(b"x")
            == sha256(b"x" + whole.request.body).hexdigest()
        )
        held = Request(method="PUT", url=URL, headers=(("a", "b"),), hidden=("k:1",))
        late_too = request_of(body=late.request._kept, **beside_body(held))  # pyright: ignore[reportAttributeAccessIssue]
        assert beside_body(late_too) == beside_body(pickle.loads(pickle.dumps(late_too))) == beside_body(held)
        other = StoredRequest(method="POST", url=URL, body=b"other")
        assert (other.length, other.sha256) == (5, sha256(b"other").hexdigest())


def test_an_answer_that_came_often_is_in_memory_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that differ have a bound: a short tape that names its lines often does not fill the memory."""
    recorded = tape_of(growing(6)).exchanges
    answer = recorded[0].response
    assert answer is not None

    def tape(bodies: Sequence[bytes]) -> bytes:
        answers = [
            replace(answer, body=body, chunk_sizes=(len(body),), chunk_offsets_us=(1,)) for body in bodies
        ]
        exchanges = (replace(one, response=own) for one, own in zip(recorded, answers, strict=True))
        return Tape(run_id="ab" * 16, exchanges=tuple(exchanges)).to_bytes()

    alike, others = tape([b"x" * 9] * 6), tape([b"%d" % number * 9 for number in range(6)])
    read = [one.response.body for one in Tape.from_bytes(alike).exchanges if one.response]
    assert all(body is read[0] for body in read)
    monkeypatch.setattr(reading, "MOST_HELD", 20)
    assert Tape.from_bytes(alike).steps == 6
    with pytest.raises(TapeError, match=r"line \d+: its answers have more than"):
        Tape.from_bytes(others)
    monkeypatch.setattr(reading, "MOST_BYTES", 20)
    with pytest.raises(TapeError, match=r"line \d+: its bodies have more than"):
        Tape.from_bytes(alike)
