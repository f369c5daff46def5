"""LangGraph with langchain-anthropic, unmodified: a graph with a tool and a loop."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from e2e.command import Typed, tracefork
from frameworks.bench import QUESTION, Bench, population
from tracefork_backend.simulate import ModelServer
from tracefork_backend.simulate.model import Call, Reply, ToolUse

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


TWO_TOOLS = '''
from langchain_anthropic import ChatAnthropic
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

def population(city: str) -> str:
    """How many people live in a city."""
    if city == "Atlantis":
        raise ValueError(f"no such city: {city}")
    return {"Lima": "10092000", "Quito": "1763000", "Oslo": "717710"}[city]

def area(city: str) -> str:
    """The area of a city in square kilometres."""
    return "2672"

model = ChatAnthropic(model="claude-haiku-4-5").bind_tools([population, area])
said = [("system", "You are a clerk."), ("user", "Compare Lima, Quito and Atlantis.")]
builder = StateGraph(MessagesState)
builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
builder.add_node("tools", ToolNode([population, area], handle_tool_errors=True))
builder.add_edge(START, "model")
builder.add_conditional_edges("model", tools_condition)
builder.add_edge("tools", "model")
print(builder.compile().invoke({"messages": said})["messages"][-1].text)
'''


def comparer(call: Call) -> Reply:
    """Asks three tools at once, then for a city that there is not, and gives up if the tool says so."""
    told = call.tool_results
    if not told:
        cities = ("population", "Lima"), ("population", "Quito"), ("area", "Lima")
        return Reply(tools=tuple(ToolUse(name, {"city": city}) for name, city in cities))
    if len(told) == 3:
        return Reply(tools=(ToolUse("population", {"city": "Atlantis"}),))
    ended = "FAILURE" if any("no such city" in text for _, text in told) else "SUCCESS"
    return Reply(text=" ".join([ended, *(text.splitlines()[0] for _, text in told)]))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_changes_hold_onward_in_a_graph_that_has_no_tool_of_ours(tmp_path: Path) -> None:
    """Results of tools by NAME#2, one that was an error, a model; a fork replays by itself."""
    for package in ("langgraph", "langchain_anthropic"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    (tmp_path / "agent.py").write_text(TWO_TOOLS)
    with ModelServer(comparer, seed=5) as server:

        def typed(*words: str) -> Typed:
            return tracefork(*words, cwd=tmp_path, ANTHROPIC_BASE_URL=server.url, ANTHROPIC_API_KEY="k")

        assert typed("run", "--", sys.executable, "agent.py").out.startswith("FAILURE 10092000 1763000 2672")
        run = str(typed("ls", "--json").rows[0]["run_id"])

        def forked(at: int, *words: str) -> dict[str, Any]:
            server.requests.clear()
            made = typed("fork", f"{run}@{at}", *words, "--success-re", "SUCCESS", "--json")
            assert made.status == 0, made.out + made.err
            (fork,) = made.rows
            assert fork["problem"] is None
            assert fork["held_in"] == fork["held_of"] > 0
            return fork

        typed("fork", f"{run}@0", "--tool-result", "population=77").refused(
            "calls population 2 times", '{"city":"Lima"}', '{"city":"Quito"}', "--tool-result population#2"
        )
        second = forked(0, "--tool-result", "population#2=77")
        assert second["stdout"].startswith("FAILURE 10092000 77 2672")
        assert [b'"77"' in one.body for one in server.requests] == [True, True]
        found = forked(1, "--tool-result", "population=42")
        assert (found["stdout"], found["outcome"]) == ("SUCCESS 10092000 1763000 2672 42\n", True)
        assert [b'"is_error":true' in one.body.replace(b" ", b"") for one in server.requests] == [False]
        forked(1, "--model", "claude-opus-4-8")
        assert [one.json()["model"] for one in server.requests] == ["claude-opus-4-8"] * 2
    assert typed("replay", found["run_id"]).out.endswith("PASS    bit-exact\n")
