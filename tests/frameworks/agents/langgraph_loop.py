"""A LangGraph graph of model and tools with a loop, with no line of ours."""

from __future__ import annotations

from typing import Any

from langchain_anthropic import ChatAnthropic
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition


def population(city: str) -> str:
    """How many people live in a city."""
    return {"Lima": "10092000", "Quito": "1763000", "Oslo": "717710"}[city]


def agent(question: str = "How many people live in Lima and in Quito?") -> str:
    """The answer of the model, which asked the tool."""
    model = ChatAnthropic(model_name="claude-haiku-4-5", max_retries=0, timeout=None, stop=None).bind_tools(
        [population]
    )

    def call_model(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("model", call_model)
    builder.add_node("tools", ToolNode([population]))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    said = builder.compile().invoke({"messages": [("user", question)]})["messages"][-1]
    return str(said.text)


if __name__ == "__main__":
    print(agent())
