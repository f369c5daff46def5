"""The Anthropic SDK's own ways to run an agent, unmodified: its tool runner, its async streaming helper."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType

import anthropic
import pytest
from conftest import Capture
from frameworks.agents import anthropic_async_stream, anthropic_tool_runner
from frameworks.bench import ASKED, PEOPLE, QUESTION, Bench
from tracefork_backend.rerun.replaying import replay
from tracefork_backend.store import open_store


@pytest.mark.parametrize(
    "made", [anthropic_tool_runner, anthropic_async_stream], ids=["tool runner", "async stream"]
)
def test_its_loop(bench: Bench, made: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loop is recorded under the user's span, replays exactly, and forks at the middle step."""
    monkeypatch.setenv("ANTHROPIC_BASE_URL", bench.server.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    run = bench.record(made.agent)
    assert [above[-1] for above in bench.parents(run)] == ["mine"] * 3
    bench.holds(run, made.agent)


class Keeper(BaseHTTPRequestHandler):
    """Keeps each conversation itself: a request brings the new messages, and names the answer before them."""

    protocol_version = "HTTP/1.1"
    kept: dict[str, list[str]]
    """The tool results so far, by the answer that they led to."""
    seen: list[str]

    def do_POST(self) -> None:
        """The model asks for each city in turn, then says what it was told."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        thread = body["thread"]
        self.seen.append(thread["type"])
        told = list(self.kept[thread["previous_message_id"]]) if thread["type"] == "continue" else []
        blocks = [
            block for message in body["messages"] for block in message["content"] if type(block) is dict
        ]
        told += [block["content"] for block in blocks if block["type"] == "tool_result"]
        key = f"msg_{len(self.seen)}"
        self.kept[key] = told
        use = {"type": "tool_use", "id": f"toolu_{key}", "name": "population"}
        asks = len(told) < len(ASKED)
        content = (
            {**use, "input": {"city": ASKED[len(told)]}} if asks else {"type": "text", "text": str(told)}
        )
        answer = {
            "id": key, "type": "message", "role": "assistant", "model": "claude-haiku-4-5",
            "content": [content],
            "stop_reason": "tool_use" if asks else "end_turn", "stop_sequence": None,
            "usage": {"input_tokens": 9, "output_tokens": 4},
        }  # fmt: skip
        sent = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


def test_a_conversation_that_the_server_keeps_replays(capture: Capture) -> None:
    """The tool runner as it is by default sends each message once; the run replays exactly all the same."""
    handler = type("Kept", (Keeper,), {"kept": {}, "seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        client = anthropic.Anthropic(
            api_key="k", base_url=f"http://127.0.0.1:{server.server_port}", max_retries=0
        )

        def agent() -> str:
            runner = client.beta.messages.tool_runner(
                model="claude-haiku-4-5",
                max_tokens=300,
                tools=[anthropic_tool_runner.population],
                messages=[{"role": "user", "content": QUESTION}],
            )
            return "".join(block.text for block in runner.until_done().content if block.type == "text")

        capture.on()
        said = agent()
        capture.off()
        server.shutdown()
        serving.join()
    assert said == str([PEOPLE[city] for city in ASKED])
    assert handler.seen == ["create", "continue", "continue"]
    again = replay(open_store(capture.store).run("last"), agent=agent)
    assert again.passed, again.receipt
    assert (again.matched, again.total, again.result) == (3, 3, said)
