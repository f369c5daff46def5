"""`run --draws` of agents of frameworks, unmodified, whose prompts and tools hold clocks, ids and choices."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from e2e.command import tracefork

# Each test starts three or four processes that import a framework: .ci/run has them, `make test` has not.
pytestmark = pytest.mark.slow

MODEL = """
from dataclasses import replace

from tracefork_backend.simulate.model import Reply, ToolUse


def prompt(call):
    told = [result for _, result in call.tool_results]
    if len(told) < 2:
        # Where no id is given, a framework makes one of its own.
        city, made = ("Lima", "Quito")[len(told)], "" if "anonymous" in call.model else None
        used = ToolUse("population", {"city": city}, id=made)
        return Reply(tools=(used,))
    return Reply(text=" and ".join(told))


def held(call):
    late = 0.15 + call.rng.random() / 10
    return replace(prompt(call), first_delay_s=late, chunk_chars=4, chunk_delay_s=0.01)
"""

AGENT = """
import asyncio, os, random, sys, threading, time, uuid, warnings
from datetime import datetime, timezone
from random import choice
from uuid import uuid4

warnings.simplefilter("ignore")
FRAMEWORK, MODEL, WAY = sys.argv[1:]
STREAM = WAY == "held"
CONVERSATIONS = 2 if STREAM else 1
STARTED = datetime.now(timezone.utc)


def population(city: str) -> str:
    \"\"\"How many people live in a city.\"\"\"
    return f"{city} {uuid4()} {time.time()} {random.randint(1, 10**6)}"


def question(number):
    return (f"{number} It is {datetime.now()}, begun {STARTED}, ticket {uuid4()}, {choice('abcdefgh')}: "
            "how many people live in Lima and in Quito?")


def langgraph(url):
    from langchain_anthropic import ChatAnthropic
    from langgraph import graph
    from langgraph.prebuilt import ToolNode, tools_condition

    model = ChatAnthropic(model=MODEL, api_key="k", base_url=url, max_retries=0, streaming=STREAM)
    model = model.bind_tools([population])
    builder = graph.StateGraph(graph.MessagesState)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_node("tools", ToolNode([population]))
    builder.add_edge(graph.START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    compiled = builder.compile()

    def ask(number):
        print(compiled.invoke({"messages": [("user", question(number))]})["messages"][-1].text)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CONVERSATIONS)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()


def pydantic_ai(url):
    import pydantic_ai
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.anthropic import AnthropicProvider
    from pydantic_ai.providers.openai import OpenAIProvider

    if MODEL.startswith("claude"):
        model = AnthropicModel(MODEL, provider=AnthropicProvider(api_key="k", base_url=url))
    else:
        model = OpenAIChatModel(MODEL, provider=OpenAIProvider(api_key="k", base_url=url + "/v1"))
    agent = pydantic_ai.Agent(model, tools=[population])

    async def ask(number):
        if STREAM:
            async with agent.run_stream(question(number)) as answer:
                print(await answer.get_output())
        else:
            print((await agent.run(question(number))).output)

    async def both():
        await asyncio.gather(*(ask(number) for number in range(CONVERSATIONS)))

    asyncio.run(both())


def openai_agents(url):
    import agents, openai

    client = openai.AsyncOpenAI(api_key="k", base_url=url + "/v1", max_retries=0)
    model = agents.OpenAIResponsesModel(model=MODEL, openai_client=client)
    agent = agents.Agent(name="clerk", model=model, tools=[agents.function_tool(population)])
    how = agents.RunConfig(tracing_disabled=True)

    async def ask(number):
        if STREAM:
            answer = agents.Runner.run_streamed(agent, question(number), run_config=how)
            async for _ in answer.stream_events():
                pass
        else:
            answer = await agents.Runner.run(agent, question(number), run_config=how)
        print(answer.final_output)

    async def both():
        await asyncio.gather(*(ask(number) for number in range(CONVERSATIONS)))

    asyncio.run(both())


from tracefork_backend.simulate import spawn

with spawn("model:" + WAY, file=__file__) as url:
    globals()[FRAMEWORK](url)
"""

TAGGED = """
import os, sys, time

sys.path.append("site-packages")
import taglib
from anthropic import Anthropic
from tracefork_backend.simulate import spawn

with spawn("research", file=__file__) as url:
    content = f"{taglib.tag()} {time.time()}"
    Anthropic(base_url=url, api_key="k", max_retries=0).messages.create(
        model="claude-haiku-4-5", max_tokens=9, messages=[{"role": "user", "content": content}]
    )
"""

KEPT_AND_NEW = """
WITH drawn AS (
    SELECT r.kind, d.value FROM draws d JOIN runs r USING (run_id) WHERE source <> 'getrandbits'
),
recorded AS (SELECT value FROM drawn WHERE kind = 'record')
SELECT count(*) FILTER (value IN (FROM recorded)) AS kept,
    count(*) FILTER (value NOT IN (FROM recorded)) AS new
FROM drawn WHERE kind = 'fork'
"""

AGENTS = (
    ("langgraph", "claude-haiku-4-5", "langgraph"),
    ("pydantic_ai", "claude-haiku-4-5", "pydantic_ai"),
    ("pydantic_ai", "gpt-anonymous", "pydantic_ai"),
    ("openai_agents", "gpt-5-mini", "agents"),
)


@pytest.mark.parametrize("way", ["prompt", "held"])
@pytest.mark.parametrize(("framework", "model", "package"), AGENTS)
def test_an_agent_of_a_framework_replays_exactly(
    tmp_path: Path, framework: str, model: str, package: str, way: str
) -> None:
    """One conversation, or two at once that stream from a slow model, read the same; a fork up to it."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "agent.py").write_text(AGENT)
    command = (sys.executable, "agent.py", framework, model, way)
    recorded = tracefork("run", "--draws", "--", *command, cwd=tmp_path)
    assert recorded.status == 0, recorded.out + recorded.err
    done = tracefork("replay", "last", cwd=tmp_path)
    assert done.status == 0, done.out + done.err
    calls = 6 if way == "held" else 3
    assert f"{calls} of {calls} exchanges served from the tape" in done.out
    assert "PASS    bit-exact" in done.out
    drawn = next(line for line in done.out.splitlines() if line.startswith("draws "))
    assert drawn.endswith(" served"), drawn
    if way == "held":  # which of two conversations comes first is chance, in a fork too
        return
    fork = tracefork("fork", "last@1", "--noop", "--tail", "live", cwd=tmp_path)
    assert fork.status == 0, fork.out + fork.err
    [row] = tracefork("sql", KEPT_AND_NEW, "--json", cwd=tmp_path).rows
    # Before the fork the start, the question's two and the first tool's two, after it the second tool's.
    assert row == {"kept": 5 + (model == "gpt-anonymous"), "new": 2 + (model == "gpt-anonymous")}


@pytest.mark.parametrize("own", ["{time.time()}", ""], ids=["beside the agent's own", "alone"])
def test_an_id_of_a_library_is_named(own: str, tmp_path: Path) -> None:
    """A drift by an id that a library made for itself says which module to record, and that mends it."""
    library = tmp_path / "site-packages" / "taglib.py"
    library.parent.mkdir()
    library.write_text("import uuid\n\n\ndef tag():\n    return f'tag-{uuid.uuid4().hex}'\n")
    (tmp_path / "agent.py").write_text(TAGGED.replace("{time.time()}", own))
    command = (sys.executable, "agent.py")
    assert tracefork("run", "--draws", "--", *command, cwd=tmp_path).status == 0
    done = tracefork("replay", "last", cwd=tmp_path)
    assert done.status == 1
    assert "FAIL    id at step 0" in done.out
    assert "uuid4 in taglib is a library's own and was not recorded" in done.out
    assert "record with TRACEFORK_DRAWS_INCLUDE=taglib" in done.out
    include = {"TRACEFORK_DRAWS_INCLUDE": "taglib"}
    assert tracefork("run", "--draws", "--", *command, cwd=tmp_path, **include).status == 0
    done = tracefork("replay", "last", cwd=tmp_path)
    assert "PASS    bit-exact" in done.out, done.out
