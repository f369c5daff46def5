"""google-genai, unmodified: a provider that we do not parse is recorded and replayed as plain HTTP."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from conftest import Capture
from frameworks.bench import ASKED, PEOPLE, QUESTION, population
from opentelemetry.sdk.trace import TracerProvider
from tracefork_backend.replay import replay
from tracefork_backend.store import open_store


class Gemini(BaseHTTPRequestHandler):
    """Answers `generateContent` and its stream: a function call per city, then what it was told."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """The request is answered in Gemini's format."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        parts = [part for content in body["contents"] for part in content["parts"]]
        told = [
            part["functionResponse"]["response"]["result"] for part in parts if "functionResponse" in part
        ]
        if len(told) < len(ASKED):
            part: dict[str, Any] = {
                "functionCall": {"name": "population", "args": {"city": ASKED[len(told)]}}
            }
        else:
            part = {"text": " and ".join(told)}
        answer = json.dumps(
            {
                "candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}],
                "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 13},
            }
        )
        streamed = "streamGenerateContent" in self.path
        sent = (f"data: {answer}\r\n\r\n" if streamed else answer).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if streamed else "application/json")
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def gemini() -> Iterator[ThreadingHTTPServer]:
    """A server that speaks Gemini, and lists the paths it was asked for."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Gemini) as server:
        server.seen = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("streaming", [False, True])
def test_its_function_calls_replay(
    capture: Capture, provider: TracerProvider, gemini: ThreadingHTTPServer, streaming: bool
) -> None:
    """Its loop of function calls is recorded whole, without its key, and replays exactly with no request."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        genai: Any = pytest.importorskip("google.genai", reason="google-genai is not installed")
    seen: list[str] = gemini.seen  # type: ignore[attr-defined]

    def agent() -> str:
        url = f"http://127.0.0.1:{gemini.server_port}"
        client = genai.Client(api_key="the-secret-key", http_options={"base_url": url})
        asked = {"model": "gemini-3-flash", "contents": QUESTION, "config": {"tools": [population]}}
        if streaming:
            return "".join(part.text or "" for part in client.models.generate_content_stream(**asked))
        return client.models.generate_content(**asked).text

    capture.on(tracer_provider=provider)
    with provider.get_tracer("test").start_as_current_span("mine"):
        said = agent()
    capture.off()
    assert said == f"{PEOPLE['Lima']} and {PEOPLE['Quito']}"
    run = open_store(capture.store).run("last")
    assert (run.steps, len(seen)) == (3, 3)
    assert run.complete, run.incomplete_reasons
    assert all("the-secret-key" not in repr(exchange) for exchange in run.exchanges)
    seen.clear()
    again = replay(run, agent=agent)
    assert again.passed, again.receipt
    assert (again.matched, again.result, seen) == (3, said, [])
