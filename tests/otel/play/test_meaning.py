"""What a transport makes up is not compared, and everything else is."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest
from growth_guard import soon

from tracefork_otel.exchange import Request
from tracefork_otel.play.match import Candidate, explain, fingerprint
from tracefork_otel.play.meaning import meant

CONTEXT = {"traceparent": "00-1", "tracestate": "a=b", "baggage": "k=v"}


def call(body: bytes, media: str = "application/json", **headers: str) -> Request:
    """A POST of that body."""
    lines = (("Content-Type", media), *((name.replace("_", "-"), said) for name, said in headers.items()))
    return Request(method="POST", url="https://tools.example/mcp", headers=lines, body=body)


def rpc(**members: object) -> dict[str, object]:
    """A message of JSON-RPC."""
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", **members}


def upload(boundary: str, text: str = "abc", inner: str = "") -> Request:
    """A file sent as multipart, with another multipart in it where `inner` is its boundary."""
    part = f"Content-Type: text/plain\r\n\r\n{text}"
    if inner:
        part = (
            f'Content-Type: multipart/mixed; boundary="{inner}"\r\n\r\n--{inner}\r\n\r\n{text}\r\n--{inner}--'
        )
    body = f"--{boundary}\r\nContent-Disposition: form-data\r\n{part}\r\n--{boundary}--\r\n"
    return call(body.encode(), f'multipart/form-data; charset=utf-8; boundary="{boundary}"')


@pytest.mark.parametrize(
    ("sent", "same"),
    [
        (rpc(params={"name": "add", "_meta": CONTEXT}), rpc(params={"name": "add"})),
        (rpc(params={"_meta": {**CONTEXT, "progressToken": 1}}), rpc(params={"_meta": {"progressToken": 1}})),
        (rpc(params={"_meta": {"progressToken": 1, **CONTEXT}}), rpc(params={"_meta": {"progressToken": 1}})),
        (rpc(params={"_meta": {}, "name": "add"}), rpc(params={"name": "add"})),
        (rpc(params={"_meta": CONTEXT}), rpc()),
        (rpc(params={}), rpc()),
        (rpc(result={"_meta": {"b3": "1-2-1", "x-b3-sampled": "1"}, "x": 1}), rpc(result={"x": 1})),
        ([rpc(params={"_meta": CONTEXT}), rpc(params={"_meta": {}, "a": 1})], [rpc(), rpc(params={"a": 1})]),
        ({"_meta": {"sentry-trace": "1"}, "text": 'say "_meta": {}'}, {"text": 'say "_meta": {}'}),
    ],
)
@pytest.mark.parametrize("spaced", [None, (",", ":")])
def test_trace_context_does_not_count(sent: object, same: object, spaced: tuple[str, str] | None) -> None:
    """What propagators put under `_meta` is left out, and so is a member that holds nothing else."""
    body, bare = (json.dumps(one, separators=spaced).encode() for one in (sent, same))
    assert meant(call(body)) == bare == meant(call(bare))


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","params":{"name":"add","traceparent":"00-1"}}',
        b'{"jsonrpc":"2.0","params":{"arguments":{"params":{}}}}',
        b'{"params":{}}',
        b'{"a":"\\"_meta\\": {\\"traceparent\\": 1}"}',
        b'{"_meta":"traceparent"}',
        b'{"_meta":{',
        b'"_meta":\xff{}',
    ],
)
def test_everything_else_counts(body: bytes) -> None:
    """The same names in other places, and what is no JSON, are compared as they stand."""
    assert meant(call(body)) == body


def test_a_boundary_does_not_count() -> None:
    """Uploads of the same parts are the same, also within each other; of other parts they are not."""
    assert fingerprint(upload("aa11")) == fingerprint(upload("bb22"))
    assert fingerprint(upload("aa11"), match="json") == fingerprint(upload("bb22"), match="json")
    assert fingerprint(upload("aa11", inner="cc")) == fingerprint(upload("bb22", inner="dd"))
    for text in ("abd", "abc--aa11", "--boundary"):
        assert fingerprint(upload("aa11", text)) != fingerprint(upload("bb22"))
    found = explain(upload("bb22", "abd"), [Candidate(0, upload("aa11"), False)])
    assert "abc" in str(found.recorded)
    assert "abd" in str(found.got)
    assert "bb22" not in str(found.got)


def test_a_content_coding_does_not_count() -> None:
    """The time in gzip's head and another level are the same body; what cannot be read whole counts raw."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "a" * 99}]}).encode()
    packed = gzip.compress(body, mtime=1), gzip.compress(body, 1, mtime=2)
    first, again = (call(one, content_encoding="gzip") for one in packed)
    assert first.body != again.body
    assert fingerprint(first) == fingerprint(again)
    assert meant(call(zlib.compress(body), content_encoding="deflate")) == body
    for odd in (packed[0][:-9], b"no gzip", packed[0] + b"more"):
        assert meant(call(odd, content_encoding="gzip")) == odd
    other = call(gzip.compress(body.replace(b"aaa", b"bbb", 1), mtime=1), content_encoding="gzip")
    assert explain(other, [Candidate(0, first, False)]).path == "messages[0].content"


@pytest.mark.parametrize("url", ["https://api.openai.com/v1/responses", "https://tools.example/mcp"])
@pytest.mark.parametrize("agent", ["python", "codex_cli_rs/1.0"])
def test_a_coding_changes_nothing_of_what_counts(url: str, agent: str) -> None:
    """What counts of a body counts as well where it is compressed: of a model call all, of others less."""
    bodies = [json.dumps({"_meta": {"traceparent": one}, "x": 1}).encode() for one in ("00-1", "00-2")]
    plain, packed = (
        [
            Request(method="POST", url=url, headers=(("user-agent", agent), *coding), body=one)
            for one in (bodies if not coding else map(gzip.compress, bodies))
        ]
        for coding in ((), (("content-encoding", "gzip"),))
    )
    assert list(map(fingerprint, plain)) == list(map(fingerprint, packed))
    assert (fingerprint(plain[0]) == fingerprint(plain[1])) == url.endswith("mcp")


def test_boundaries_that_are_short_or_many() -> None:
    """A boundary goes where it delimits, not where its letters stand otherwise."""
    assert b'multipart/mixed; boundary="boundary"' in meant(upload("aa11", inner="m"))
    assert fingerprint(upload("aa11", inner="m")) == fingerprint(upload("bb22", inner="x--"))
    many = [
        upload("aa", "".join(map("\r\nContent-Type: multipart/a; boundary={}".format, one)))
        for one in (
            range(100, 400),
            range(500, 800),
        )
    ]
    assert fingerprint(many[0]) == fingerprint(many[1])


@pytest.mark.parametrize(
    "body",
    [
        b'{"_meta":{"x":' * 20_000,
        b'{"_meta":{"x":' * 400 + b"1" + b"}}" * 400,
        b"[" + b",".join([b'{"_meta":{"x":' * 150 + b"1" + b"}}" * 150] * 150) + b"]",
        b'{"_meta":{"x"' * 20_000,
        b'{"_meta":' * 900 + b"1" + b"}" * 900 + b" " * 500_000,
    ],
)
def test_deep_members_take_no_long(body: bytes) -> None:
    """Members within each other cost by the body's length."""
    with soon(0.1):
        assert meant(call(body)) == body


def test_many_boundaries_take_no_long() -> None:
    """Parts that name another boundary each cost by their number."""
    lines = "".join(f"\r\nContent-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}" for n in range(20_000))
    with soon(0.2):
        assert meant(upload("aa", lines)).count(b"--boundary") == 20_002
        assert len(meant(upload("aa", "\n--" + " " * 300_000 + "x" + "\r" * 9)))


def test_hostile_bodies_take_no_long() -> None:
    """Thousands of members that are left out cost by their number."""
    many = [rpc(params={"_meta": CONTEXT, "x": 1})] * 20_000
    deep = b'{"_meta":{"a":' * 50_000
    with soon(0.5):
        assert meant(call(json.dumps(many).encode())).count(b"traceparent") == 0
        assert meant(call(deep)) == deep
