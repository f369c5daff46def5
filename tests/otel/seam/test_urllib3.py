"""What urllib3 has beside what all clients have (test_contract.py), and the framing of its bodies."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3
from conftest import Capture
from hypothesis import given
from hypothesis import strategies as st

from tracefork_otel.exchange import Response
from tracefork_otel.seam import pooled
from tracefork_otel.seam.http1 import Framing, Played, wire


def test_exporters_are_not_recorded(capture: Capture, raw: str) -> None:
    """What OpenTelemetry's exporter sends by requests is no exchange."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    capture.on()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{raw}/echo")))
    provider.get_tracer("a").start_span("b").end()
    provider.shutdown()
    assert capture.read().exchanges == []


def test_all_is_taken_back(capture: Capture, raw: str) -> None:
    """After `uninstrument()` nothing of urllib3 is ours."""
    before = urllib3.HTTPConnectionPool._make_request
    capture.on()
    assert urllib3.HTTPConnectionPool._make_request is not before
    capture.off()
    assert urllib3.HTTPConnectionPool._make_request is before
    assert not pooled.is_captured()


def test_a_version_that_does_not_fit_is_left_alone(capture: Capture) -> None:
    """Pools without what is wrapped are named in the log and the store, and stay as they are."""
    pools = SimpleNamespace(
        HTTPConnectionPool=type("HTTPConnectionPool", (), {}), HTTPSConnectionPool=type("S", (), {})
    )
    module: Any = SimpleNamespace(__name__="urllib9", __version__="9.1")
    capture.on()
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "urllib9.connectionpool", pools)
        pooled.install(module)
    (note,) = capture.read().notes
    assert "urllib9 9.1 is not captured: it has no HTTPConnectionPool._make_request" in str(note.attributes)


PIECES = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


@given(
    pieces=PIECES, cuts=st.lists(st.integers(1, 30), max_size=40), chunked=st.booleans(), length=st.booleans()
)
def test_any_cuts_of_any_framing_give_the_body(
    pieces: list[bytes], cuts: list[int], chunked: bool, length: bool
) -> None:
    """However a connection's bytes are read, the body is what was sent, and its end is seen."""
    body = b"".join(pieces)
    told = (("transfer-encoding", "chunked"),) if chunked else (("content-length", str(len(body))),) * length
    recorded = Response(status=200, headers=told, body=body, chunk_sizes=tuple(map(len, pieces)))
    sent = b"".join(wire(recorded, pieces, method="GET", whole=True))
    after = sent[sent.index(b"\r\n\r\n") + 4 :]
    framing = Framing(chunked=chunked, length=len(body) if length and not chunked else None)
    found: list[bytes] = []
    at = 0
    for size in [*cuts, len(after)]:
        found += framing.take(after[at : at + size])
        at += size
    assert b"".join(found) == body
    assert framing.complete or framing.ends_with_connection
    file = Played(iter([sent])).makefile("rb")
    assert file.read() == sent


def test_what_is_no_chunk_is_an_error_of_the_recorder_alone() -> None:
    """A server that does not keep to the framing is told by ValueError, not by wrong bytes."""
    with pytest.raises(ValueError, match="invalid literal"):
        list(Framing(chunked=True, length=None).take(b"no number\r\n"))
    with pytest.raises(ValueError, match="no chunk begins"):
        list(Framing(chunked=True, length=None).take(b"1" * 70_000))
