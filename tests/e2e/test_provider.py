"""`run --provider`: an agent without a tracer provider has its libraries' spans in the store."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from e2e.command import here, tracefork
from tracefork_backend.simulate import ModelServer

# Each test imports the SDK in several processes: .ci/run has them, `make test` has not.
pytestmark = pytest.mark.slow

CALLS = """
import sys
import anthropic
from opentelemetry import trace
early = trace.get_tracer("library")
{setup}
client = anthropic.Anthropic(base_url=sys.argv[1], api_key="none")
for text in ("one", "two"):
    with early.start_as_current_span("library call"):
        pass
    client.messages.create(
        model="claude-sonnet-4-5", max_tokens=10, messages=[{{"role": "user", "content": text}}]
    )
{check}
"""
OWN = """
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exported = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exported))
trace.set_tracer_provider(provider)
"""
OWN_CHECK = """
assert trace.get_tracer_provider() is provider
names = [span.name for span in exported.get_finished_spans()]
assert names.count("library call") == 2 and len(names) >= 6, names
"""


def record(folder: Path, setup: str, check: str) -> list[dict[str, str]]:
    """The spans of an agent recorded with `--provider`."""
    (folder / "agent.py").write_text(CALLS.format(setup=setup, check=check))
    with ModelServer() as server:
        done = tracefork("run", "--provider", "--", sys.executable, "agent.py", server.url, cwd=folder)
    assert done.status == 0, done.out + done.err
    assert "Overriding" not in done.err
    return here("sql", "select * from spans order by started_at", "--json", cwd=folder).rows


def test_native_spans_are_parents_of_exchanges(tmp_path: Path) -> None:
    """From the first call on, the SDK's own spans are stored, above their exchanges and in one run."""
    spans = {span["span_id"]: span for span in record(tmp_path, "", "")}
    exchanges = here("sql", "from exchanges order by step", "--json", cwd=tmp_path).rows
    assert len(exchanges) == 2
    for exchange in exchanges:
        native = spans[exchange["parent_span_id"]]
        assert native["scope"] not in ("tracefork_otel", ""), native
        assert native["trace_id"] == exchange["run_id"]
    (run,) = here("ls", "--json", cwd=tmp_path).rows
    assert run["steps"] == 2
    assert [span["trace_id"] for span in spans.values() if span["name"] == "library call"] == [
        run["run_id"]
    ] * 2


def test_a_provider_of_the_agent_wins(tmp_path: Path) -> None:
    """One that the agent sets gets every span, of earlier tracers too, and the store has them once."""
    spans = record(tmp_path, OWN, OWN_CHECK)
    assert [span["name"] for span in spans].count("library call") == 2
    assert len({span["span_id"] for span in spans}) == len(spans)
