"""Experiments on parts of requests, by real forks: what carries success, and what was not seen to."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
import tracefork_backend as tf
from conftest import Capture
from tracefork_backend.blaming import drive
from tracefork_backend.blaming.parting import blame_parts, estimate
from tracefork_backend.blaming.plan import Plan
from tracefork_backend.blaming.search import Search
from tracefork_backend.blaming.verifying import verify
from tracefork_backend.simulate import ModelServer
from tracefork_backend.simulate.model import Call, Reply, Usage
from tracefork_backend.store import Run, open_store
from tracefork_backend.validate.worlds import Prompt

import tracefork_otel
from tracefork_otel import UsageError

MODEL = "claude-haiku-4-5"
GRADED = tf.regex(success="WON", failure="LOST")
SECTIONS = (
    "You are a travel agent.",
    "## Dates\nWrite dates as 2026-11-03.",
    "## Booking\nBook before you answer.",
    "## Style\nBe short.\n\nBe kind.",
    "## Names\nAsk for the traveller's name.",
)
SYSTEM = "\n\n".join(SECTIONS)
TOOLS = ("book", "search", "weather")


class World:
    """A model that wins where what it needs is in its prompt and among its tools; it may lose by chance."""

    def __init__(self) -> None:
        self.needs = ""
        self.harms = ""
        self.tool = ""
        self.noise = 0.0
        self.rng = random.Random(7)
        self.last: list[Call] = []

    def __call__(self, call: Call) -> Reply:
        """Say how it went in the second answer."""
        self.last.append(call)
        used = Usage(input_tokens=1000, output_tokens=0)
        if call.last == "think":
            return Reply(text="good", usage=used)
        lost = self.needs not in call.system or (bool(self.tool) and self.tool not in call.tools)
        lost = lost or (bool(self.harms) and self.harms in call.system)
        if self.rng.random() < self.noise:
            lost = not lost
        return Reply(text="LOST" if lost else "WON", usage=used)


WORLD = World()


def plan_trip(url: str, task: str = "go", system: str = SYSTEM, tools: tuple[str, ...] = TOOLS) -> str:
    """Think, then tell how it ended: an agent with a system prompt and tools in each request."""
    said = ""
    offered = [{"name": name, "input_schema": {"type": "object"}} for name in tools]
    with httpx2.Client(verify=False) as client:
        for text in ("think", task):
            body: dict[str, Any] = {
                "model": MODEL,
                "max_tokens": 9,
                "messages": [{"role": "user", "content": text}],
            }
            body |= {"system": system} if system else {}
            body |= {"tools": offered} if tools else {}
            response = client.post(f"{url}/v1/messages", json=body)
            said = response.raise_for_status().json()["content"][0]["text"]
    return said


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    """The model."""
    with ModelServer(WORLD) as running:
        yield running


@pytest.fixture
def recorded(capture: Capture, server: ModelServer) -> Iterator[Callable[..., list[Run]]]:
    """Records a run of each of these tasks in a world that needs this section, or this tool."""

    def make(
        *tasks: str, needs: str = "", harms: str = "", tool: str = "", noise: float = 0.0, **how: Any
    ) -> list[Run]:
        WORLD.needs, WORLD.harms, WORLD.tool, WORLD.noise = needs, harms, tool, 0.0
        WORLD.rng = random.Random(7)
        server.requests.clear()
        for task in tasks:
            capture.on()
            tracefork_otel.agent(plan_trip)(server.url, task, **how)
            capture.off()
        WORLD.noise = noise
        WORLD.last.clear()
        store = open_store(capture.store)
        return [store.run("last" if not back else f"last~{back}") for back in reversed(range(len(tasks)))]

    yield make
    WORLD.needs, WORLD.harms, WORLD.tool, WORLD.noise = "", "", "", 0.0


def verdicts(found: Any) -> list[str]:
    """The verdict of each part."""
    return [one.verdict for one in found.findings.effects]


@pytest.mark.parametrize(
    ("parts", "rates", "most"), [(5, (0.05,), 20), (5, (0.1, 0.2, 0.1), 24), (30, (0.05,), 40)]
)
def test_few_forks_are_spread_over_all_parts_and_it_says_what_more_would_take(
    parts: int, rates: tuple[float, ...], most: int
) -> None:
    """A limit before the first look leaves each part its share, which is shown, and says how to go on."""
    rng, world = random.Random(3), Prompt(parts=parts, rates=rates, effects={1: 0.9})
    plan = Plan(
        steps=parts,
        mode="parts",
        parent_failed=False,
        output=None,
        strata=len(rates),
        deterministic="never",
        max_trials=most,
    )
    found = drive.run(Search(plan), lambda request: world.flips(request, rng)).findings
    assert {one.verdict for one in found.effects} == {"inconclusive"}
    assert all("not settled before the end" in one.reason for one in found.effects)
    told = re.search(
        rf"after {most} forks.*; about (\d+) more .*: blame resume last --max-trials (\d+)", found.message
    )
    assert told is not None
    rng = random.Random(3)
    further = replace(plan, max_trials=int(told[2]))
    found = drive.run(Search(further), lambda request: world.flips(request, rng)).findings
    assert found.certified == (1,)


@pytest.mark.slow
def test_exactly_the_section_that_carries_success_is_certified(recorded: Callable[..., list[Run]]) -> None:
    """Of five sections one; the others show no effect, alone and together; the trials give it all again."""
    runs = recorded("go", needs="Book before you answer.")
    found = blame_parts(runs, parts="system", oracle=GRADED, agent=plan_trip)
    assert verdicts(found) == ["screened_out", "screened_out", "certified", "screened_out", "screened_out"]
    (together,) = found.findings.sets
    assert (together.steps, together.verdict) == ((0, 1, 3, 4), "screened_out")
    assert together.ci_high is not None
    assert together.ci_high <= 0.15
    assert found.findings.message.startswith("## Booking carries success")
    store = open_store(runs[0].store.path)
    assert verify(store, "last") == (found.experiment_id, [])
    (row,) = store.rows("select step, part, tokens, verdict from blame")
    assert row == {"step": 2, "part": "## Booking", "tokens": 9, "verdict": "certified"}
    without = [call.system for call in WORLD.last if "Book before" not in call.system]
    assert set(without) == {"\n\n".join(one for one in SECTIONS if "Book before" not in one)}


@pytest.mark.slow
def test_exactly_the_tool_that_carries_success_is_certified(recorded: Callable[..., list[Run]]) -> None:
    """Of three tools one; it is offered in no request of a fork without it."""
    runs = recorded("go", tool="search")
    found = blame_parts(runs, parts="tools", oracle=GRADED, agent=plan_trip)
    assert verdicts(found) == ["screened_out", "certified", "screened_out"]
    assert {call.tools for call in WORLD.last} >= {("book", "weather"), ("search",)}


@pytest.mark.slow
def test_what_carries_is_found_over_runs_that_differ(recorded: Callable[..., list[Run]]) -> None:
    """Three noisy runs in turn: the forks of each arm are spread evenly, and pairs are of one run."""
    runs = recorded("go", "go by train", "go by ship", needs="Book before you answer.", noise=0.1)
    found = blame_parts(runs, parts="system", oracle=GRADED, agent=plan_trip)
    assert found.findings.certified == (2,)
    parents = {
        row["run_id"]: row["parent_run_id"]
        for row in open_store(runs[0].store.path).rows("select run_id, parent_run_id from forks")
    }
    for arm in {one.arm_id for one in found.trials}:
        spread = [
            parents[one.run_id]
            for one in sorted(found.trials, key=lambda one: one.replicate)
            if one.arm_id == arm
        ]
        assert spread == [runs[at % 3].run_id for at in range(len(spread))]


@pytest.mark.slow
def test_a_section_that_costs_success_is_told_with_its_sign(recorded: Callable[..., list[Run]]) -> None:
    """Where the recorded run failed for a section, it fails less often without it."""
    runs = recorded("go", harms="Be short.")
    found = blame_parts(runs, parts="system", oracle=GRADED, agent=plan_trip)
    (effect,) = (one for one in found.findings.effects if one.verdict == "certified")
    assert (effect.step, effect.effect) == (3, -1.0)
    assert "## Style costs success: without it the run fails 1.00" in found.findings.message
    assert "less often" in found.findings.message


@pytest.mark.slow
def test_a_section_that_stands_twice_is_taken_out_at_its_own_place(
    recorded: Callable[..., list[Run]],
) -> None:
    """Of two alike the second goes with the second part, and the first with the first."""
    system = "Be short.\n\nBook before you answer.\n\nBe short.\n\nSay what it costs."
    runs = recorded("go", system=system)
    found = blame_parts(runs, parts="system", oracle=GRADED, agent=plan_trip, max_trials=40)
    assert [name for name, _ in found.plan.parts][::2] == ["Be short.", "Be short. (2)"]
    asked = {call.system for call in WORLD.last}
    assert "Book before you answer.\n\nBe short.\n\nSay what it costs." in asked
    assert "Be short.\n\nBook before you answer.\n\nSay what it costs." in asked


@pytest.mark.slow
def test_a_prompt_of_one_section_goes_whole(recorded: Callable[..., list[Run]]) -> None:
    """Without it requests have no system prompt at all."""
    runs = recorded("go", system="Book before you answer.", needs="Book before you answer.")
    found = blame_parts(runs, parts="system", oracle=GRADED, agent=plan_trip)
    assert verdicts(found) == ["certified"]
    assert any("system" not in call.body for call in WORLD.last)


@pytest.mark.slow
def test_runs_whose_prompts_differ_are_compared_by_what_they_share(
    recorded: Callable[..., list[Run]],
) -> None:
    """A heading is known though what stands below it differs; what one run alone has is told, and left."""
    other = SYSTEM.replace("2026-11-03", "3 November") + "\n\n## Today\nIt is Monday."
    (one,) = recorded("go")
    (two,) = recorded("go", system=other)
    told, which = estimate([one, two], parts="system")
    assert [part.name for part in which.parts] == [section.splitlines()[0] for section in SECTIONS]
    assert which.told == ("## Today stands in 1 of 2 runs, so it is not tried",)
    assert told.forks_median > 0
    (third,) = recorded("go", system="Nothing of that.")
    with pytest.raises(UsageError, match="have no part in common"):
        estimate([one, third], parts="system")


@pytest.mark.slow
def test_runs_without_such_parts_are_refused_by_name(recorded: Callable[..., list[Run]]) -> None:
    """A run without a system prompt, or tools, says so, and nothing is paid."""
    (bare,) = recorded("go", system="", tools=())
    for parts, said in (("system", "has no system prompt"), ("tools", "has no tools")):
        with pytest.raises(UsageError, match=said):
            blame_parts([bare], parts=parts, oracle=GRADED, agent=plan_trip)
    with pytest.raises(UsageError, match="is named twice"):
        estimate([bare, bare], parts="system")
    with pytest.raises(UsageError, match="are no parts"):
        estimate([bare], parts="words")
    assert WORLD.last == []
