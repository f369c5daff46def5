"""A replay names programs of other languages that the agent starts: nothing plays to them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import Desk, at_desk
from tracefork_backend.rerun.replaying import replay

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone says what programs connect to")

STARTS = {
    "run": "subprocess.run([PROGRAM, *WORDS])",
    "posix_spawn": "os.waitpid(os.posix_spawn(PROGRAM, [PROGRAM, *WORDS], os.environ), 0)",
    "asyncio": """
async def start():
    child = await asyncio.create_subprocess_exec(PROGRAM, *WORDS)
    await child.wait()
asyncio.run(start())""",
    "shell": "subprocess.run(shlex.join([PROGRAM, *WORDS]), shell=True)",
    "script": """
open("steps.sh", "w").write(shlex.join([PROGRAM, *WORDS]) + "; true")
subprocess.run(["sh", "steps.sh"])""",
}
HOLDS = """
say("begin")
{start}
say("end")
"""
PERL = (
    "use IO::Socket::INET;"
    'my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $ARGV[0]) or die;'
    "select(undef, undef, undef, 0.4);"
)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose agents have a server."""
    with at_desk(tmp_path, monkeypatch) as found:
        yield found


def agent(way: str, program: str, *words: str) -> str:
    """An agent that starts the program between two calls."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"no {program} here")
    head = f"import asyncio, os, shlex, subprocess\nPROGRAM, WORDS = {found!r}, {list(words)!r}\n"
    return head + HOLDS.format(start=STARTS[way])


@pytest.mark.slow
@pytest.mark.parametrize("way", STARTS)
def test_a_program_that_asks_the_recorded_server_fails_the_replay(desk: Desk, way: str) -> None:
    """However it is started; if it is meant, its name says so."""
    run = desk.recorded(agent(way, "perl", "-e", PERL, str(desk.server.port)))
    result = replay(run)
    assert not result.passed
    assert [leak.host for leak in result.leaks] == ["perl"]
    assert f"the program perl connected to 127.0.0.1:{desk.server.port}" in result.leaks[0].text
    assert "0 bytes from the network" not in result.receipt[0]
    if way == "run":
        assert replay(run, allow_hosts=["perl"]).passed


@pytest.mark.parametrize(("way", "program"), [("run", "node"), ("run", "perl"), ("script", "perl")])
def test_an_interpreter_that_asks_nobody_is_a_note(desk: Desk, way: str, program: str) -> None:
    """Then nobody says that nothing went out."""
    run = desk.recorded(agent(way, program, "-e", "sleep 1" if program == "perl" else "0"))
    result = replay(run)
    assert result.passed
    assert "0 bytes from the network" not in result.receipt[0]
    (note,) = [line for line in result.receipt if line.startswith("note")]
    assert f"the program {program}, which was started" in note
    if way == "run":
        assert f"{desk.folder}/agent.py:" in note
        assert any(f"the program {program}, which was started" in line for line in run.unseen)


def test_another_service_of_this_machine_is_not_the_tapes(desk: Desk) -> None:
    """A database on loopback is asked by a program in the recording and in the replay."""
    code = "import socket\nSERVICE = socket.create_server(('127.0.0.1', 0))\n"
    code += "PORT = str(SERVICE.getsockname()[1])\n"
    run = desk.recorded(
        code + agent("run", "perl", "-e", PERL).replace("[PROGRAM, *WORDS]", "[PROGRAM, *WORDS, PORT]")
    )
    assert replay(run).passed


def test_programs_without_a_language_are_no_note(desk: Desk) -> None:
    """The receipt of an agent that lists files says what it always said."""
    result = replay(desk.recorded(agent("run", "ls")))
    assert "0 bytes from the network" in result.receipt[0]
    assert not result.programs


def test_a_client_whose_words_tell_no_address_is_named(desk: Desk) -> None:
    """`curl` reads them from a file, too fast to be seen at it."""
    (desk.folder / "asked").write_text(f'url = "{desk.server.url}/raw/bytes/1"\noutput = "/dev/null"\n')
    result = replay(desk.recorded(agent("run", "curl", "-s", "-K", "asked")))
    assert any("curl" in line for line in result.receipt if line.startswith(("note", "leak")))
    assert "0 bytes from the network" not in result.receipt[0]
