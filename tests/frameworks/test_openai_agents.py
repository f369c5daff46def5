"""The OpenAI Agents SDK, unmodified, over both APIs of its client."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from frameworks.bench import QUESTION, Bench, population


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("api", ["responses", "chat"])
def test_an_agent_with_a_tool(bench: Bench, api: str) -> None:
    """An agent's loop is recorded under the user's span, replays exactly, and forks in the middle."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        agents: Any = pytest.importorskip("agents", reason="openai-agents is not installed")
    openai = pytest.importorskip("openai")

    def agent() -> str:
        client = openai.AsyncOpenAI(api_key="k", base_url=bench.server.openai_url, max_retries=0)
        kind = agents.OpenAIResponsesModel if api == "responses" else agents.OpenAIChatCompletionsModel
        mine = agents.Agent(
            name="clerk",
            model=kind(model="gpt-5-mini", openai_client=client),
            tools=[agents.function_tool(population)],
        )
        # Its own tracing would post to its maker's server, key or no key.
        said = agents.Runner.run_sync(mine, QUESTION, run_config=agents.RunConfig(tracing_disabled=True))
        return said.final_output

    run = bench.record(agent)
    assert bench.parents(run) == [["mine"]] * 3
    bench.holds(run, agent)
