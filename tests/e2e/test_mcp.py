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
