"""`tracefork-otel mcp` as a coding assistant starts it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from e2e.booking import BOOKING
from e2e.command import BARE, environment, tracefork

pytest.importorskip("mcp")

from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.exceptions import MCPError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SCHEMAS = 5_000
"""Bytes of all tools' descriptions and schemas, which an assistant has in its context all the time."""


def server(folder: Path, *words: str) -> Any:
    """Return the client's end of the server in a folder."""
    return stdio_client(
        StdioServerParameters(
            command=sys.executable,
            args=["-m", "tracefork_backend.cli", "mcp", *words],
            cwd=folder,
            env=environment(**BARE),
        )
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose store holds the booking that fails."""
    made = tmp_path_factory.mktemp("mcp")
    tracefork("run", "--", sys.executable, BOOKING, "--city", "Osaka", cwd=made, **BARE)
    return made


def test_the_failing_step_is_found(folder: Path) -> None:
    """From the list to the step, by the tools alone, whose schemas are small."""

    async def use() -> None:
        async with Client(server(folder)) as client:
            tools = (await client.list_tools()).tools
            assert [one.name for one in tools] == ["list_runs", "show_run", "show_step", "sql_query", "diff"]
            assert all(one.annotations and one.annotations.read_only_hint for one in tools)
            run = json.loads((await client.call_tool("list_runs", {})).content[0].text)["runs"][0]["run"]
            steps = json.loads((await client.call_tool("show_run", {"run": run})).content[0].text)["steps"]
            assert "JL60" in steps[2]["said"]
            shown = await client.call_tool("show_step", {"run": run, "step": 2})
            assert "2026-11-04" in shown.content[0].text

    asyncio.run(use())


def test_a_fix_is_proved_by_a_fork_within_its_budget(folder: Path) -> None:
    """Replays and forks are booked, schemas stay small, and what agents print is no part of the protocol."""

    async def use() -> None:
        async with Client(server(folder, "--allow-run", "--budget", "0.10")) as client:

            async def call(name: str, **arguments: Any) -> tuple[bool, Any]:
                found = await client.call_tool(name, arguments)
                text = found.content[0].text
                return bool(found.is_error), text if found.is_error else json.loads(text)

            tools = (await client.list_tools()).tools
            whole = [one.model_dump(by_alias=True, exclude_none=True) for one in tools]
            assert len(json.dumps(whole)) <= SCHEMAS
            failed, replayed = await call("replay", run="last")
            assert (failed, replayed["passed"]) == (False, True)
            run = (await call("list_runs", kind="record"))[1]["runs"][0]["run"]
            change = {"edit": "tool_input", "value": '{"flight": "NH176", "date": "2026-11-03"}'}
            failed, why = await call("fork", run=run, step=2, **change, max_usd=0.2)
            assert failed
            assert "--budget 0.1" in why
            failed, fork = await call("fork", run=run, step=2, **change, success_re="BOOKED", max_usd=0.1)
            assert not failed, fork
            assert (fork["outcome"], "BOOKED" in fork["output"]) == (True, True)
            assert any("JL60 → NH176" in line for line in fork["said"])
            failed, why = await call("blame_status", job="none")
            assert failed
            assert "no job 'none'" in why

    asyncio.run(use())


def test_nothing_is_started_unless_allowed(folder: Path) -> None:
    """A server without --allow-run has no such tools, and says what to start it with."""

    async def use() -> None:
        async with Client(server(folder)) as client:
            found = await client.call_tool("fork", {"run": "last", "step": 0, "edit": "resample"})
            assert found.is_error
            assert "--allow-run" in found.content[0].text

    asyncio.run(use())


def test_prompts_hold_the_run(folder: Path) -> None:
    """fix_run and explain_run bring the run's steps, and say in words which run is none."""

    async def use() -> None:
        async with Client(server(folder)) as client:
            for name in ("fix_run", "explain_run"):
                found = await client.get_prompt(name, {"run": "last~0"})
                assert "JL60" in found.messages[0].content.text
                with pytest.raises(MCPError, match="names no run"):
                    await client.get_prompt(name, {"run": "unknown"})

    asyncio.run(use())
