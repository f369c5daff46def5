"""The Anthropic SDK's own ways to run an agent, unmodified: its tool runner, its async streaming helper."""

from __future__ import annotations

from types import ModuleType

import pytest
from frameworks.agents import anthropic_async_stream, anthropic_tool_runner
from frameworks.bench import Bench


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
