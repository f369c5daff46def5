"""Blame of parts typed as a user types it, on an agent with five sections in its system prompt."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.command import asking, here
from tracefork_backend.simulate import Call, ModelServer, Reply

AGENT = '''
import os, sys
import httpx2
import tracefork_otel

SYSTEM = """You are a travel agent.

## Dates
Write dates as 2026-11-03.

## Booking
Book before you answer.

## Style
Be short.

## Names
Ask for the name of the traveller."""
TOOLS = [{"name": name, "input_schema": {"type": "object"}} for name in ("book", "search")]


@tracefork_otel.agent
def plan_trip(city):
    with httpx2.Client(base_url=os.environ["ANTHROPIC_BASE_URL"], verify=False) as client:
        asked = {"model": "claude-haiku-4-5", "max_tokens": 9, "system": SYSTEM, "tools": TOOLS}
        asked["messages"] = [{"role": "user", "content": city}]
        return client.post("/v1/messages", json=asked).json()["content"][0]["text"]


if __name__ == "__main__":
    print(plan_trip(sys.argv[1]))
'''
GRADED = ("--success-re", "BOOKED", "--failure-re", "SORRY")


def book(call: Call) -> Reply:
    """Book where it is told to, and can."""
    good = "Book before" in call.system and "book" in call.tools
    return Reply(text="BOOKED" if good else "SORRY")


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    """The model."""
    with ModelServer(book) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, server: ModelServer) -> Path:
    """A folder with two recorded runs of the agent."""
    (tmp_path / "trip_agent.py").write_text(AGENT)
    for task in ("Rome", "Oslo"):
        done = asking(tmp_path, server, "run", "--", sys.executable, "trip_agent.py", task)
        assert done.status == 0, done.err
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(300)  # a process for each of some eighty forks
def test_the_sections_of_two_runs_are_told_apart(folder: Path, server: ModelServer) -> None:
    """Two tables, and every number again from the trials; what is interrupted goes on."""
    asked = ("blame", "last", "last~1", "--parts", "system", *GRADED, "--jobs", "2")
    cut = asking(folder, server, *asked, "--max-trials", "20")
    assert "ended: max_trials" in cut.out, cut.err
    further = ("--max-trials", "76", "--jobs", "2", "--report", "parts.html")
    done = asking(folder, server, "blame", "resume", "last", *further)
    assert done.status == 0, done.err
    assert "## Booking carries success: without it the run fails 1.00" in done.out
    changes, none = done.out.split("no effect found, bounded by so much more failure without it")
    assert "## Booking" in changes
    assert all(name in none for name in ("## Dates", "## Style", "## Names", "You are a travel agent."))
    assert "all 4 of those together, about" in none
    assert "safe" not in done.out
    assert here("blame", "verify", "last", cwd=folder).status == 0
    again = here("blame", "show", "last", cwd=folder)
    assert "## Booking: without it the run fails more often" in again.out
    page = (folder / "parts.html").read_text()
    assert "<h1>## Booking carries success.</h1>" in page
    shown = here("blame", "show", "last", "--report", "again.html", cwd=folder)
    assert (shown.status, (folder / "again.html").read_text()) == (0, page)
    told = json.loads(here("blame", "show", "last", "--json", cwd=folder).out)
    assert [(one["part"], one["verdict"]) for one in told["effects"]][2] == ("## Booking", "certified")


@pytest.mark.slow
def test_tools_are_told_apart_and_bad_usage_is_refused(folder: Path, server: ModelServer) -> None:
    """Of two tools the one that books; flags of steps have no place."""
    done = asking(folder, server, "blame", "last", "--parts", "tools", *GRADED, "--jobs", "2")
    assert "book carries success" in done.out, done.err
    shown = asking(folder, server, "blame", "last", "--parts", "tools", *GRADED, "--estimate")
    assert "parts  2 tools, about" in shown.out, shown.err
    assert "if one part has an effect" in shown.out
    for words, said in (
        (("last", "--parts", "words"), "--parts"),
        (("last", "last~1"), "--parts system|tools"),
        (("last", "--parts", "system", "--ablate", "x"), "--ablate"),
        (("last", "--parts", "system", "--mode", "value"), "--mode"),
        (("last", "--parts", "system", "--bound", "0"), "a bound of 0"),
        (("last", "--bound", "0.1"), "--parts system|tools"),
        (("last", "--mode", "parts"), "--parts system or --parts tools"),
    ):
        here("blame", *words, *GRADED, cwd=folder).refused(said)
