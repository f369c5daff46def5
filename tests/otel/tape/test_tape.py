"""A tape's file gives back the tape, or an error; nothing in between."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from growth_guard import soon
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracefork_otel.errors import TapeError
from tracefork_otel.exchange import Exchange, Request, Response, StoredRequest
from tracefork_otel.store.pieces import Pieces, Stored
from tracefork_otel.store.records import Note
from tracefork_otel.tape.digest import FORMATS, digest_of
from tracefork_otel.tape.start import HowStarted
from tracefork_otel.tape.tape import Tape
from tracefork_otel.wire.cuts import cut, decode_piece, encode_piece

RUN = "0123456789abcdef" * 2
URL = "https://api.anthropic.com/v1/messages"


def exchange(step: int, request: bytes, response: bytes | None, **fields: Any) -> Exchange:
    """An exchange with those bodies."""
    half = len(response) // 2 if response else 0
    answered = Response(
        status=200,
        headers=(("content-type", "text/plain; charset=ü"),),
        body=response or b"",
        chunk_sizes=(half, len(response or b"") - half),
        chunk_offsets_us=(10, 20),
    )
    whole = Exchange(
        trace_id=RUN,
        span_id=f"{step:016x}",
        parent_span_id=None if step % 2 else "f" * 16,
        process_id="12-0badcafe",
        seq=step,
        started_ns=1_795_000_000_000_000_000 + step,
        ended_ns=1_795_000_000_000_000_900 + step,
        request=Request(method="POST", url=URL, headers=(("A", "1"), ("A", "2")), body=request),
        response=None if response is None else answered,
        outcome="no_response" if response is None else "complete",
        name="chat m",
        service="svc",
    )
    return dataclasses.replace(whole, **fields)


def conversation(steps: int, text: int = 300) -> list[bytes]:
    """Compact request bodies of a growing conversation, tools at the end, as the SDKs write them."""
    tools = [
        {"name": f"tool{n}", "input_schema": {"type": "object", "description": "d" * 200}} for n in range(4)
    ]
    messages = [
        {"role": ("user", "assistant")[n % 2], "content": f"{n} " + "é" * text} for n in range(2 * steps)
    ]
    return [
        json.dumps(
            {"model": "m", "messages": messages[: 2 * step + 1], "tools": tools},
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()
        for step in range(steps)
    ]


def sample() -> Tape:
    """A tape with JSON, SSE, bytes that are no text, an error, and everything that a manifest can hold."""
    bodies = conversation(3)
    return Tape(
        run_id=RUN,
        name="booking",
        exchanges=(
            exchange(0, bodies[0], b'{"id":"msg_1","content":[{"type":"text","text":"hi"}]}'),
            exchange(1, bodies[1], b'event: a\ndata: {"x":1}\n\nevent: b\ndata: {}\n\n', outcome="cut",
                     error_type="httpx2.RemoteProtocolError", error_message="peer closed"),
            exchange(2, bodies[2], bytes(range(256)), attributes={"n": 1, "l": ["a"]}, span_status="ERROR"),
            exchange(3, b"", None, error_type="httpx2.ConnectError", trace_id="9" * 32),
        ),
        start=HowStarted(
            command=("python", "agent.py"),
            cwd="somewhere",
            environment={"B": "2", "A": "1\udcff"},
            withheld=("API_KEY",),
            entrypoint="pkg.mod:fn",
            arguments={"args": [1], "kwargs": {"city": "Tōkyō"}},
            git_commit="c0ffee",
            versions={"python": "3.11.7"},
            exit_status=0,
        ),
        notes=(Note(kind="lost", time_ns=5, attributes={"count": 2}),),
    )  # fmt: skip


def test_a_file_gives_back_its_tape(tmp_path: Path) -> None:
    """Every field survives, the file is its owner's alone, and writing it again gives the same bytes."""
    tape = sample()
    path = tmp_path / "run.tape"
    tape.dump(path)
    loaded = Tape.load(path)
    assert loaded == tape
    assert loaded.digest == tape.digest
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert loaded.to_bytes() == path.read_bytes()
    assert os.listdir(tmp_path) == ["run.tape"]


def test_the_file_is_json_lines_with_a_message_a_line(tmp_path: Path) -> None:
    """Each line is JSON; a message stands in it as the JSON it is, once, although three bodies hold it."""
    lines = sample().to_bytes().decode().splitlines()
    parsed = [json.loads(line) for line in lines]
    assert [line.get("step") for line in parsed if "step" in line] == [0, 1, 2, 3]
    found = [
        value for line in parsed for value in line.values() if isinstance(value, dict) and value.get("role")
    ]
    assert [message["content"].split()[0] for message in found] == ["0", "1", "2", "3", "4"]
    assert parsed[-1]["end"] is True


def test_the_size_is_linear_in_the_steps() -> None:
    """Twice the steps of a growing conversation take about twice the bytes, also with two taking turns."""

    def size(steps: int) -> int:
        first = conversation(steps)
        second = [body.replace(b'"m"', b'"n"') for body in first]
        bodies = [body for pair in zip(first, second, strict=True) for body in pair]
        tape = Tape(run_id=RUN, exchanges=tuple(exchange(n, body, b"{}") for n, body in enumerate(bodies)))
        return len(tape.to_bytes())

    assert size(80) < 2.1 * size(40)


BODY = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(conversation(3, 5)),
    st.text(max_size=40).map(str.encode),
    st.lists(st.text(max_size=8)).map(lambda texts: "".join(f"data: {t}\n\n" for t in texts).encode()),
    st.dictionaries(
        st.text(max_size=3), st.lists(st.dictionaries(st.text(max_size=2), st.text(max_size=4)))
    ).map(lambda value: json.dumps(value).encode()),
)


@given(st.lists(st.tuples(BODY, st.none() | BODY), max_size=5))
def test_any_bytes_round_trip(bodies: list[tuple[bytes, bytes | None]]) -> None:
    """Whatever the bodies hold, the loaded tape equals the dumped one."""
    tape = Tape(run_id=RUN, exchanges=tuple(exchange(n, a, b) for n, (a, b) in enumerate(bodies)))
    assert Tape.from_bytes(tape.to_bytes()) == tape


@given(BODY)
def test_pieces_join_to_the_body(body: bytes) -> None:
    """A body is what its pieces are when joined, and each piece is one line."""
    pieces = cut(body)
    lines = [encode_piece(piece) for piece in pieces]
    assert b"".join(map(decode_piece, lines)) == body
    assert not any(b"\n" in line for line in lines)
    assert all(json.loads(line) for line in lines)


SAMPLE = sample().to_bytes()


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(at=st.integers(0, len(SAMPLE) - 1), flip=st.integers(1, 255))
def test_a_flipped_byte_is_refused(at: int, flip: int) -> None:
    """No byte of the file can change without an error that names the place."""
    damaged = bytearray(SAMPLE)
    damaged[at] ^= flip
    with pytest.raises(TapeError, match=r"x\.tape"):
        Tape.from_bytes(bytes(damaged), where="x.tape")


@given(st.integers(0, len(SAMPLE) - 1))
def test_a_truncated_file_is_refused(length: int) -> None:
    """Any shorter file is refused."""
    with pytest.raises(TapeError, match=r"truncated|not a tape|checksum"):
        Tape.from_bytes(SAMPLE[:length])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"name":"booking"', b'"name":"cooking"', "line 1: the manifest"),
        (b'"status":200', b'"status":500', r"line \d+: an exchange was changed"),
        (b'"chunk_sizes":[128,128]', b'"chunk_sizes":[127,129]', r"line \d+: an exchange was changed"),
        (b"charset=", b"charsat=", r"line \d+: an exchange was changed"),
        (b'\\"x\\":1', b'\\"x\\":2', r"line \d+: the response body of step 1 \(lines"),
        (b'"content":"0 ', b'"content":"9 ', r"line \d+: the request body of step 0 \(lines"),
        (b'"end":true', b'"end":null', "truncated"),
        (b'{"tracefork_tape":2', b'{"tracefork_tape":3', "format 3 is newer than 2"),
        (b'{"tracefork_tape":2', b'{"tracefork_tape":1', "line 1: the manifest was changed"),
        (b'{"tracefork_tape"', b'{"somebody_elses"', "not a tape"),
    ],
)
def test_what_was_changed_is_named(old: bytes, new: bytes, message: str) -> None:
    """The error tells the line and what is on it."""
    assert old in SAMPLE
    with pytest.raises(TapeError, match=message):
        Tape.from_bytes(SAMPLE.replace(old, new, 1), where="x.tape")


def test_an_exchange_line_that_was_reordered_is_refused() -> None:
    """Two exchange lines that change places, each whole, break the digest."""
    lines = SAMPLE.split(b"\n")
    lines[-4], lines[-3] = lines[-3], lines[-4]
    with pytest.raises(TapeError, match="breaks the digest"):
        Tape.from_bytes(b"\n".join(lines))


def test_files_that_are_none(tmp_path: Path) -> None:
    """A missing, empty or foreign file, and a folder, are each refused by name."""
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "sqlite").write_bytes(b"SQLite format 3\0" + bytes(100))
    for name in ("missing", "empty", "sqlite", "."):
        with pytest.raises(TapeError, match="tape"):
            Tape.load(tmp_path / name)


def test_a_damaged_exchange_is_not_written(tmp_path: Path) -> None:
    """A tape is never made of a body that is not whole, and a failed dump leaves no file."""
    broken = dataclasses.replace(sample().exchanges[0], damage="its digest does not match")
    with pytest.raises(TapeError, match="step 0"):
        Tape(run_id=RUN, exchanges=(broken,)).dump(tmp_path / "run.tape")
    with pytest.raises(TapeError, match="cannot write"):
        sample().dump(tmp_path / "no" / "run.tape")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda e: dataclasses.replace(e, request=dataclasses.replace(e.request, method="PUT")),
        lambda e: dataclasses.replace(e, request=dataclasses.replace(e.request, url="https://x")),
        lambda e: dataclasses.replace(e, request=dataclasses.replace(e.request, body=b"x")),
        lambda e: dataclasses.replace(e, response=dataclasses.replace(e.response, status=201)),
        lambda e: dataclasses.replace(e, response=dataclasses.replace(e.response, headers=())),
        lambda e: dataclasses.replace(e, response=dataclasses.replace(e.response, body=b"x")),
        lambda e: dataclasses.replace(e, response=dataclasses.replace(e.response, chunk_sizes=(1, 52))),
        lambda e: dataclasses.replace(e, response=None),
        lambda e: dataclasses.replace(e, outcome="cut"),
    ],
)
def test_the_digest_covers_what_was_exchanged(change: Any) -> None:
    """Each thing that client and server gave each other changes the digest; who timed it does not."""
    exchanges = sample().exchanges
    assert digest_of((change(exchanges[0]), *exchanges[1:])) != digest_of(exchanges)
    later = dataclasses.replace(exchanges[0], started_ns=1, span_id="a" * 16, replayed=True)
    assert digest_of((later, *exchanges[1:])) == digest_of(exchanges)


DIGESTS = {
    1: "21be7270196e84c5b4ec1d1ba98ea1f3b43ee3e675a642df7fc93b175fefa906",
    2: "999272d9a5c936585028f407d8073123d001145ace18b3d5ccd15b4aef0b5213",
}


@pytest.mark.parametrize("form", FORMATS)
def test_a_tape_keeps_the_format_of_its_file(form: int) -> None:
    """It is read, written again and digested by the format that it was made in, which gives what it gave."""
    made = dataclasses.replace(sample(), format=form)
    read = Tape.from_bytes(made.to_bytes())
    assert read == made
    assert read.digest == made.digest == DIGESTS[form]


def test_what_requests_begin_with_is_digested_once() -> None:
    """The digest of a conversation costs what it is long, not the square of it."""
    recorded = sample().exchanges[0]
    head, turns = b'{"messages":[', [b'{"role":"user","content":"%0200d"},' % turn for turn in range(8000)]
    pieces = Pieces.of("x", [head, *turns])
    exchanges = tuple(
        dataclasses.replace(
            recorded, request=StoredRequest(method="POST", url="https://x/", body=Stored(pieces, (0, turn)))
        )
        for turn in range(1, len(turns))
    )
    with soon(0.15):
        digest_of(exchanges)


def test_a_start_is_told_by_flat_attributes() -> None:
    """What is known of a start becomes span attributes, structures as JSON; what is not is left out."""
    attributes = sample().start.attributes()
    assert json.loads(str(attributes["tracefork.command"])) == ["python", "agent.py"]
    assert attributes["tracefork.exit_status"] == 0
    assert HowStarted().attributes() == {}
