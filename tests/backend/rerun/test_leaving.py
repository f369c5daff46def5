"""Whatever of an agent leaves the recorder is named in the recording, and fails a replay or fork by name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tracefork_backend as tf
from forked import Desk, at_desk
from tracefork_backend.agents.recording import record
from tracefork_backend.rerun.forking import fork
from tracefork_backend.rerun.replaying import replay


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose folder has a worker that asks once for each of its arguments."""
    with at_desk(tmp_path, monkeypatch) as one:
        one.write("for text in sys.argv[1:]: say(text)", "worker.py")
        yield one


def starts(options: str = "", executable: str = sys.executable) -> str:
    """An agent that asks, and has the worker ask, started with an environment of its own."""
    return f"""
import os
import subprocess
say("plan")
env = {{name: os.environ[name] for name in ("PATH", "AGENT_URL", "AGENT_API_KEY")}}
subprocess.run([{executable!r}, *{options.split()!r}, "worker.py", "part"], env=env, check=True)
say("sum up")
"""


@pytest.mark.slow
def test_a_child_with_its_own_environment_is_played_to(desk: Desk) -> None:
    """All calls are recorded; the replay passes, and nobody asks the model."""
    run = desk.recorded(starts())
    assert (run.steps, run.complete) == (3, True)
    result = replay(run)
    assert result.passed, result.receipt
    made = fork(run, at=0, edit=tf.noop(), tail="offline")
    assert made.problem is None
    assert not desk.asked()


@pytest.mark.slow
def test_an_isolated_child_fails_by_name(desk: Desk) -> None:
    """The recording says what it lacks; replay and fork name the program, and what allows it."""
    run = desk.recorded(starts("-I"))
    assert run.steps == 2
    assert "worker.py" in run.incomplete_reasons[0]
    result = replay(run)
    assert not result.passed
    assert [(leak.host, leak.port) for leak in result.leaks] == [("worker.py", None)]
    (line,) = [line for line in result.receipt if line.startswith("leak")]
    assert "-I keeps Python from reading PYTHONPATH" in line
    assert line.endswith("--allow-host worker.py")
    assert result.receipt[-1] == "FAIL    1 program went round the tape"
    assert "0 bytes from the network" not in result.receipt[0]
    problem = fork(run, at=0, edit=tf.noop(), tail="offline").problem
    assert problem is not None
    assert problem.kind == "leak"
    assert "worker.py" in problem.text
    assert replay(run, allow_hosts=["worker.py"]).passed


@pytest.mark.slow  # takes processes
def test_another_interpreter_fails_by_name(desk: Desk) -> None:
    """A Python that has no tracefork-otel says so, and is named like the one that is isolated."""
    base = getattr(sys, "_base_executable", sys.executable)
    probe = [base, "-c", "import tracefork_otel"]
    if subprocess.run(probe, capture_output=True, check=False, cwd="/").returncode == 0:
        pytest.skip("the base interpreter has the package too")
    desk.write("", "other.py")
    desk.write(starts(executable=base).replace('"worker.py"', '"other.py"'))
    (desk.folder / "other.py").write_text("")
    recorded = desk.record()
    assert any("other.py" in problem for problem in recorded.problems)
    run = desk.run()
    assert not run.complete
    result = replay(run)
    assert [leak.host for leak in result.leaks] == ["other.py"]
    assert not result.passed
    assert replay(run, allow_hosts=["other.py"]).passed


@pytest.mark.slow  # takes processes
def test_a_recording_inside_of_a_recording_is_part_of_it(desk: Desk) -> None:
    """What a nested `run` starts is on the outer tape, and is answered from it."""
    nested = [
        sys.executable,
        "-m",
        "tracefork_backend.cli",
        "run",
        "--",
        sys.executable,
        "worker.py",
        "inner",
    ]
    run = desk.recorded(f"import subprocess\nsay('outer')\nsubprocess.run({nested!r}, check=True)")
    assert run.steps == 2
    assert len(desk.store.runs("record")) == 1
    result = replay(run)
    assert result.passed, result.receipt
    assert not desk.asked()


@pytest.mark.slow
def test_a_part_without_recording_is_named(desk: Desk) -> None:
    """What is asked after `uninstrument()` is missing by name; the replay lets it nowhere, and says why."""
    run = desk.recorded("""
from tracefork_otel import TraceforkInstrumentor
say("one")
TraceforkInstrumentor().instrument()
TraceforkInstrumentor().uninstrument()
say("secret", forget=True)
TraceforkInstrumentor().instrument()
say("two")
""")
    assert [one.request.body.count(b"secret") for one in run.exchanges] == [0, 0]
    assert "uninstrument()" in run.incomplete_reasons[0]
    assert "agent.py" in run.incomplete_reasons[0]
    result = replay(run)
    assert not desk.asked()
    assert "uninstrument()" in result.drifts[0].text


@pytest.mark.slow  # takes processes
def test_an_agent_that_stops_recording_at_its_end_is_whole(desk: Desk) -> None:
    """`uninstrument()` alone is no gap."""
    run = desk.recorded("""
from tracefork_otel import TraceforkInstrumentor
TraceforkInstrumentor().instrument()
say("one")
TraceforkInstrumentor().uninstrument()
""")
    assert run.complete, run.incomplete_reasons
    assert replay(run).passed


@pytest.mark.slow
def test_housekeeping_is_no_step(desk: Desk) -> None:
    """It is left out with `run`, and of the tape of a run that has it; the receipt says that it went out."""
    body = """
say("a")
httpx2.get(os.environ["AGENT_URL"] + "/raw/204?now=" + os.urandom(4).hex())
"""
    run = desk.recorded(body)
    assert run.steps == 2
    assert not replay(run).passed
    desk.write(body)
    result = replay(run, skip_hosts=["127.0.0.1/raw"])
    assert (result.passed, result.total) == (True, 1), result.receipt
    assert "0 bytes from the network" not in result.receipt[0]
    assert any("127.0.0.1" in line and "--skip-host" in line for line in result.receipt)
    record(desk.store_path, (sys.executable, "agent.py"), skip_hosts=["127.0.0.1/raw"])
    again = desk.run()
    assert again.steps == 1
    assert replay(again).passed


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/raw/204", "/raw/empty"])
def test_a_proxied_run_keeps_all_of_its_steps(desk: Desk, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """The proxy leaves nothing out as housekeeping, and so asks a replay's tape for all of it."""
    monkeypatch.setenv("ANTHROPIC_BASE_URL", desk.server.url)
    desk.write(f"""
base = os.environ["ANTHROPIC_BASE_URL"]
asked = {{"model": "m", "max_tokens": 9, "messages": [{{"role": "user", "content": "hi"}}]}}
print(httpx2.post(base + "/v1/messages", json=asked).text)
print(httpx2.get(base + "{path}").status_code)
""")
    record(desk.store_path, (sys.executable, "agent.py"), proxy=True)
    result = replay(desk.run(), skip_hosts=["127.0.0.1/raw"])
    assert (result.passed, result.total) == (True, 2), result.receipt


PATHS = {
    "by a shell": "subprocess.run('cd . && PYTHONPATH=src python worker.py part', shell=True, check=True)",
    "by a list": "subprocess.run(['sh', '-c', 'PYTHONPATH=\"src\" python worker.py part'], check=True)",
    "by env": "subprocess.run(['env', 'PYTHONPATH=src', 'python', 'worker.py', 'part'], check=True)",
    "by os.system": "assert os.system('export PYTHONPATH=src; python worker.py part') == 0",
    "by os.spawn": "os.spawnlp(os.P_WAIT, 'sh', 'sh', '-c', 'PYTHONPATH=src python worker.py part')",
    "by asyncio": """
import asyncio
async def main():
    child = await asyncio.create_subprocess_shell('PYTHONPATH=src python worker.py part')
    assert await child.wait() == 0
asyncio.run(main())""",
}


@pytest.mark.slow
@pytest.mark.parametrize("way", PATHS)
def test_a_line_with_another_python_path_is_in_reach(
    desk: Desk, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it starts is recorded and played to, and finds its modules first where the line says."""
    monkeypatch.setenv("PATH", os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    (desk.folder / "src").mkdir()
    (desk.folder / "src" / "theirs.py").write_text("")
    desk.write("import theirs\nfor text in sys.argv[1:]: say(text)", "worker.py")
    run = desk.recorded(f"import subprocess\nsay('plan')\n{PATHS[way]}\nsay('sum up')")
    assert (run.steps, run.incomplete_reasons) == (3, ())
    result = replay(run)
    assert result.passed, result.receipt
    assert not desk.asked()


@pytest.mark.slow
def test_a_command_with_another_python_path_is_in_reach(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of `run`'s own line, too; it is recorded as it was typed."""
    monkeypatch.setenv("PATH", os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    desk.write("say('plan')")
    recorded = desk.record("sh", "-c", "PYTHONPATH=src python agent.py; python worker.py part")
    assert not recorded.problems
    run = desk.run()
    assert (run.steps, run.start.command[-1]) == (2, "PYTHONPATH=src python agent.py; python worker.py part")
    assert replay(run).passed


COMMANDS = {
    "a shell's line": ["sh", "-c", "timeout 9 sh -c 'python -I worker.py part'; python agent.py"],
    "a script": ["bash", "steps.sh"],
    "a script with a shebang": ["timeout", "20", "./steps.sh"],
    "a cleared environment": ["sh", "-c", f"env -i {sys.executable} worker.py; python agent.py"],
}
if sys.platform == "linux":
    COMMANDS |= {
        "a Makefile": ["make", "isolated"],
        "a Makefile that sets its path": ["make", "path"],
        "a Makefile below a shell": ["sh", "-c", "make -s again"],
        "a shell's standard input": ["sh", "-c", "cat steps.sh | sh"],
    }
MAKEFILE = """
isolated:
\tpython -I worker.py part
\tpython agent.py
path:
\tPYTHONPATH=src python worker.py part
\tpython agent.py
again:
\t$(MAKE) isolated
reached:
\tpython agent.py
\tpython worker.py part
\tpython --version
below:
\tpython starts.py
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", COMMANDS)
def test_what_the_command_itself_starts_out_of_reach_fails_by_name(
    desk: Desk, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no Python stands above it, what the command's words start is named, and fails the replay."""
    monkeypatch.setenv("PATH", os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    desk.write("say('plan')")
    steps = desk.folder / "steps.sh"
    steps.write_text("#!/bin/sh\npython -I worker.py part\npython agent.py\n")
    steps.chmod(0o700)
    (desk.folder / "Makefile").write_text(MAKEFILE)
    recorded = desk.record(*COMMANDS[way])
    assert [run.steps for run in recorded.runs] == [1]
    (problem,) = recorded.problems
    assert "worker.py" in problem
    run = desk.run()
    assert "worker.py" in run.incomplete_reasons[0]
    result = replay(run)
    assert [(leak.host, leak.port) for leak in result.leaks] == [("worker.py", None)]
    assert result.receipt[-1] == "FAIL    1 program went round the tape"
    assert replay(run, allow_hosts=["worker.py"]).passed
    leaked = fork(run, at=0, edit=tf.noop(), tail="offline").problem
    assert leaked is not None
    assert leaked.kind == "leak"


@pytest.mark.slow
def test_what_is_reached_below_make_is_not_named(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor twice what a Python of the run starts, which names it itself."""
    monkeypatch.setenv("PATH", os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    desk.write("say('plan')")
    desk.write(starts("-I"), "starts.py")
    (desk.folder / "Makefile").write_text(MAKEFILE)
    recorded = desk.record("make", "reached")
    assert not recorded.problems
    assert [run.steps for run in recorded.runs] == [2]
    assert replay(desk.run()).passed
    recorded = desk.record("make", "below")
    (problem,) = recorded.problems
    assert "starts.py:" in problem


@pytest.mark.slow  # takes processes
def test_a_command_that_records_by_itself_is_not_named(desk: Desk) -> None:
    """An isolated Python whose script calls `instrument()` is recorded, and played to."""
    desk.write("from tracefork_otel import TraceforkInstrumentor as T\nT().instrument()\nsay('plan')")
    recorded = desk.record(sys.executable, "-I", "agent.py")
    assert not recorded.problems
    assert desk.run().complete
    result = replay(desk.run())
    assert result.passed, result.receipt
