"""The one line: its arguments, what it turns on besides, and that it leaves nothing behind."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx2
import pytest
from conftest import Capture
from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor, HTTPXClientInstrumentor
from recorded import fetch, launched, read_store, run_python

from tracefork_otel import TraceforkInstrumentor, TraceforkSpanProcessor, UsageError
from tracefork_otel.session import current


def test_everything_is_put_back(capture: Capture, raw: str) -> None:
    """After `uninstrument()` clients, provider setter, SIGTERM and stock instrumentation are as before."""
    before = (
        httpx2.Client._send_single_request,
        httpx2.AsyncClient._send_single_request,
        trace.set_tracer_provider,
        signal.getsignal(signal.SIGTERM),
    )
    assert before[3] is signal.SIG_DFL
    capture.on(http_spans=True)
    assert httpx2.Client._send_single_request is not before[0]
    assert trace.set_tracer_provider is not before[2]
    assert HTTPX2ClientInstrumentor().is_instrumented_by_opentelemetry
    assert HTTPXClientInstrumentor().is_instrumented_by_opentelemetry
    capture.off()
    after = (
        httpx2.Client._send_single_request,
        httpx2.AsyncClient._send_single_request,
        trace.set_tracer_provider,
        signal.getsignal(signal.SIGTERM),
    )
    assert after == before
    assert not HTTPX2ClientInstrumentor().is_instrumented_by_opentelemetry
    assert current.session is None
    fetch(httpx2, "sync", "GET", f"{raw}/empty")
    assert not capture.store.exists()


def test_a_later_setter_stays(capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch of `set_tracer_provider` that came after ours is not undone."""
    before = trace.set_tracer_provider
    capture.on()
    later = lambda provider: None  # noqa: E731
    monkeypatch.setattr(trace, "set_tracer_provider", later)
    capture.off()
    assert trace.set_tracer_provider is later
    trace.set_tracer_provider = before


def test_unknown_argument_is_an_error() -> None:
    """A mistyped argument is named, and nothing is turned on."""
    with pytest.raises(UsageError, match="stoer"):
        TraceforkInstrumentor().instrument(stoer=".tracefork")
    assert current.session is None
    assert not TraceforkInstrumentor().is_instrumented_by_opentelemetry


def test_arguments_come_before_the_environment(
    capture: Capture, raw: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An argument wins over the variable, and the variable over the default."""
    monkeypatch.setenv("TRACEFORK_STORE", str(tmp_path / "environment"))
    monkeypatch.setenv("TRACEFORK_REDACT_HEADERS", "x-tenant")
    capture.on()
    fetch(httpx2, "sync", "GET", f"{raw}/empty", headers={"x-tenant": "me"})
    assert ("x-tenant", "REDACTED") in capture.read().only().request.headers
    assert not (tmp_path / "environment").exists()


def test_what_the_line_says_holds_after_another_one(
    capture: Capture, raw: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`opentelemetry-instrument` turns us on before the line does, which may say what is not to be stored."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "city"\npattern = "Lima"\n')
    capture.on()
    TraceforkInstrumentor().instrument(redact=rules, http_spans=True)
    assert HTTPX2ClientInstrumentor().is_instrumented_by_opentelemetry
    TraceforkInstrumentor().instrument(skip_dep_check=True, raise_exception_on_conflict=True)
    TraceforkInstrumentor().instrument(http_spans=False, store=capture.store)
    assert not HTTPX2ClientInstrumentor().is_instrumented_by_opentelemetry
    fetch(httpx2, "sync", "POST", f"{raw}/echo", content=b"How many live in Lima?")
    (exchange,) = capture.read().exchanges
    assert b"Lima" not in exchange.request.body
    assert not caplog.messages


@pytest.mark.slow
def test_under_run_the_store_is_the_runs(tmp_path: Path, raw: str) -> None:
    """In a process that `run` started, the line's other settings count, and the store is the command's."""
    code = f"""
from tracefork_otel import TraceforkInstrumentor
TraceforkInstrumentor().instrument(store={str(tmp_path / "mine")!r}, redact_headers=["x-tenant"])
import httpx2
httpx2.get("{raw}/empty", headers={{"x-tenant": "me"}})
"""
    run_python(code, store=tmp_path / "runs", **launched())
    assert ("x-tenant", "REDACTED") in read_store(tmp_path / "runs").only().request.headers
    assert not (tmp_path / "mine").exists()


def test_a_processor_alone_captures_no_client(capture: Capture, raw: str) -> None:
    """Our processor in a pipeline stores spans; clients are left alone until the line is written."""
    before = httpx2.Client._send_single_request
    TraceforkSpanProcessor(capture.store)
    try:
        assert httpx2.Client._send_single_request is before
        assert current.session is not None
        assert current.session.settings.store == capture.store
    finally:
        capture.on()
    fetch(httpx2, "sync", "GET", f"{raw}/empty")
    assert capture.read().only()
