"""LangGraph with langchain-anthropic, unmodified: a graph with a tool and a loop."""

from __future__ import annotations

import warnings

import pytest
from frameworks.bench import QUESTION, Bench, population

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize("streaming", [False, True])
def test_a_graph_with_a_tool_and_a_loop(bench: Bench, streaming: bool) -> None:
    """A graph of model and tools is recorded under the user's span, replays exactly, and forks midway."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = pytest.importorskip("langgraph.graph", reason="LangGraph is not installed")
        models = pytest.importorskip("langchain_anthropic", reason="langchain-anthropic is not installed")
        from langgraph.prebuilt import ToolNode, tools_condition

    model = models.ChatAnthropic(
        model="claude-haiku-4-5",
        api_key="k",
        base_url=bench.server.url,
        max_retries=0,
        streaming=streaming,
    ).bind_tools([population])

    def agent() -> str:
        builder = graph.StateGraph(graph.MessagesState)
        builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
        builder.add_node("tools", ToolNode([population]))
        builder.add_edge(graph.START, "model")
        builder.add_conditional_edges("model", tools_condition)
        builder.add_edge("tools", "model")
        said = builder.compile().invoke({"messages": [("user", QUESTION)]})["messages"][-1]
        return said.text if isinstance(said.text, str) else said.text()

    run = bench.record(agent)
    assert bench.parents(run) == [["mine"]] * 3
    bench.holds(run, agent)
