"""Where in the agent's code an exchange was asked for, by every way in which code is called."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
from recorded import read_store, run_python

from tracefork_otel.redaction.redact import Redactor
from tracefork_otel.seam import sites

AGENT = """
import asyncio, sys, threading
from concurrent.futures import ThreadPoolExecutor

from tracefork_otel import TraceforkInstrumentor
TraceforkInstrumentor().instrument(http_spans=False)
import aiohttp, httpx2, urllib3

URL = sys.argv[1] + "/empty"

def ask():
    httpx2.get(URL)  # ask

def parts():
    with httpx2.stream("GET", URL) as response:  # parts
        yield from response.iter_bytes()

async def aask(client):
    await client.get(URL)  # aask

async def main():
    async with httpx2.AsyncClient() as client:
        await aask(client)
        await asyncio.gather(client.get(URL))  # main
        await asyncio.wait_for(client.get(URL), 9)  # main
        await asyncio.create_task(client.get(URL))  # main
        async with asyncio.TaskGroup() as group:  # main
            group.create_task(client.get(URL))
        await asyncio.to_thread(httpx2.get, URL)  # nowhere
    async with aiohttp.ClientSession() as session:
        await (await session.get(URL)).read()  # main

ask()
list(parts())
thread = threading.Thread(target=ask)
thread.start()
thread.join()
with ThreadPoolExecutor() as pool:
    pool.submit(ask).result()
    pool.submit(httpx2.get, URL).result()  # nowhere
asyncio.run(main())
urllib3.request("GET", URL)  # <module>
"""
ASKED = ["ask", "parts", "ask", "ask", None, "aask", *["main"] * 4, None, "main", "<module>"]


def test_the_agents_own_line_whatever_calls_it(raw: str, tmp_path: Path) -> None:
    """Calls, streams, threads, pools, tasks of a library, and each client; None where none waits."""
    (tmp_path / "agent.py").write_text(AGENT)
    run_python([str(tmp_path / "agent.py"), raw], store=tmp_path / "store")
    lines = AGENT.splitlines()
    found: list[str | None] = []
    for one in read_store(tmp_path / "store").exchanges:
        if one.site is not None:
            place = re.fullmatch(r".*agent\.py:(\d+) (.*)", one.site)
            assert place is not None, one.site
            assert lines[int(place[1]) - 1].endswith(f"# {place[2]}"), one.site
        found.append(None if one.site is None else one.site.partition(" ")[2])
    assert found == ASKED


def test_off(raw: str, tmp_path: Path) -> None:
    """The setting leaves it out."""
    (tmp_path / "agent.py").write_text(AGENT)
    run_python([str(tmp_path / "agent.py"), raw], store=tmp_path / "store", TRACEFORK_SITES="0")
    exchanges = read_store(tmp_path / "store").exchanges
    assert (len(exchanges), {one.site for one in exchanges}) == (len(ASKED), {None})


def test_no_users_name_and_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path below home has no user's name; one that looks like a key is replaced."""
    home = Path("/home/ada")
    key = "sk-ant-api03-" + "a1B2" * 20
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    sites.begin()
    told: list[str | None] = []
    for file in (home / "agent.py", Path("/srv") / key / "agent.py", tmp_path / "a" / "agent.py"):
        names = {"told": told, "site": partial(sites.site, Redactor()), "__name__": "agent"}
        exec(compile("told.append(site())", str(file), "exec"), names)
    sites.begin()
    monkeypatch.undo()
    assert told[0] == "~/agent.py:1 <module>"
    assert told[1] is not None
    assert key not in told[1]
    assert told[2] == "a/agent.py:1 <module>"
