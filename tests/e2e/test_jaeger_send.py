"""Runs of an agent without a provider in a real Jaeger: sent by `run`, and by `send`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from e2e.command import here, tracefork
from jaeger import Jaeger
from tracefork_backend.simulate import ModelServer

pytestmark = pytest.mark.slow

AGENT = """
import os, httpx2
for text in ("one", "two", "three"):
    body = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": text}]}
    httpx2.post(os.environ["AGENT_URL"] + "/v1/messages", json=body).raise_for_status()
"""


@pytest.mark.parametrize("way", ["run", "send"])
def test_a_fork_links_to_a_parent_that_is_there(jaeger: Jaeger, tmp_path: Path, way: str) -> None:
    """What Jaeger shows of a run is each of its spans once, and both links of a fork's root lead to them."""
    (tmp_path / "agent.py").write_text(AGENT)
    otlp = {"OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp_http}
    with ModelServer() as server:
        env = {"AGENT_URL": server.url, **(otlp if way == "run" else {})}
        done = tracefork("run", "--", sys.executable, "agent.py", cwd=tmp_path, timeout=100, **env)
        assert done.status == 0, done.err
        for _ in range(0 if way == "run" else 2):
            assert here("send", "last", cwd=tmp_path, **otlp).status == 0
        env |= otlp
        made = tracefork("fork", "last@1", "--text", "else", "--json", cwd=tmp_path, timeout=100, **env)
        assert made.status == 0, made.err
    (run,) = here(
        "sql", "select run_id, started_at from runs where kind = 'record'", "--json", cwd=tmp_path
    ).rows
    trace = jaeger.trace(run["run_id"], lambda one: len(one.named("chat claude-haiku-4-5")) >= 3)
    ids = [span.span_id for span in trace.spans if not span.name.startswith("tracefork.")]
    assert len(ids) == len(set(ids))
    assert len(trace.named("chat claude-haiku-4-5")) == 3
    assert all(span.parent_span_id in {None, *ids} for span in trace.spans)
    fork = jaeger.trace(made.rows[0]["run_id"], lambda one: bool(one.spans))
    (root,) = (span for span in fork.spans if span.parent_span_id is None)
    assert len(root.links) == 2
    assert {target for target, _ in root.links} == {run["run_id"]}
    assert {span_id for _, span_id in root.links} <= set(ids)
