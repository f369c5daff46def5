"""A pydantic-ai agent under a tracer provider of the user's own, with no line of ours."""

from __future__ import annotations

import os

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from pydantic_ai import Agent


def population(city: str) -> str:
    """How many people live in a city."""
    return {"Lima": "10092000", "Quito": "1763000", "Oslo": "717710"}[city]


def agent(question: str = "How many people live in Lima and in Quito?") -> str:
    """The answer of the model, which asked the tool."""
    return Agent("anthropic:claude-haiku-4-5", tools=[population]).run_sync(question).output


if __name__ == "__main__":
    if "OWN_PROVIDER" in os.environ:
        trace.set_tracer_provider(TracerProvider())
    Agent.instrument_all()
    print(agent())
