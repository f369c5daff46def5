"""pydantic-ai, unmodified, with both kinds of model, under its own OpenTelemetry spans."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from frameworks.bench import QUESTION, Bench, population


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("maker", ["anthropic", "openai"])
def test_an_agent_with_a_tool(bench: Bench, maker: str) -> None:
    """Each exchange is below the framework's own span of its call; the run replays exactly and forks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydantic_ai = pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed")
        from pydantic_ai.models.instrumented import InstrumentationSettings

    def model() -> Any:
        if maker == "anthropic":
            from pydantic_ai.models.anthropic import AnthropicModel
            from pydantic_ai.providers.anthropic import AnthropicProvider

            provider = AnthropicProvider(api_key="k", base_url=bench.server.url)
            return AnthropicModel("claude-haiku-4-5", provider=provider)
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        return OpenAIChatModel(
            "gpt-5-mini", provider=OpenAIProvider(api_key="k", base_url=bench.server.openai_url)
        )

    def agent() -> str:
        mine = pydantic_ai.Agent(model(), tools=[population])
        mine.instrument = InstrumentationSettings(tracer_provider=bench.provider)
        return mine.run_sync(QUESTION).output

    run = bench.record(agent)
    for above in bench.parents(run):
        assert above[0].startswith("chat "), above
        assert any("agent" in name for name in above[1:-1]), above
        assert above[-1] == "mine"
    bench.holds(run, agent)
