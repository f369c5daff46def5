"""Programs that an agent starts: a Python is recorded and played to whatever environment it is given."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from recorded import Recorded, launched, read_store, run_python

from tracefork_otel import Tape
from tracefork_otel.seam.lines import commands_of, in_scripts
from tracefork_otel.seam.programs import leaving

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"

WAYS = {
    "subprocess": "subprocess.run([sys.executable, 'child.py'], env={'PATH': ''}, check=True)",
    "bytes": "subprocess.run([sys.executable, 'child.py'], env={b'PATH': b''}, check=True)",
    "shell": "subprocess.run(sys.executable + ' child.py', shell=True, env={'A': '1'}, check=True)",
    "asyncio": """
async def main():
    child = await asyncio.create_subprocess_exec(sys.executable, 'child.py', env={})
    assert await child.wait() == 0
asyncio.run(main())""",
    "posix_spawn": "os.waitpid(os.posix_spawn(sys.executable, [sys.executable, 'child.py'], {}), 0)",
    "spawnve": "assert os.spawnve(os.P_WAIT, sys.executable, [sys.executable, 'child.py'], {}) == 0",
    "execve": "os.execve(sys.executable, [sys.executable, 'child.py'], {'A': '1'})",
    "cleared": """
os.environ.clear()
os.spawnv(os.P_WAIT, sys.executable, [sys.executable, 'child.py'])
assert not os.environ""",
    "system": "os.environ.pop('PYTHONPATH'); os.system(sys.executable + ' child.py')",
    "spawned": """
import multiprocessing
os.environ['PYTHONPATH'] = os.getcwd()
if __name__ == '__main__':
    child = multiprocessing.get_context('spawn').Process(target=print)
    child.start()
    child.join()
    assert os.environ['PYTHONPATH'] == os.getcwd()""",
}
"""Ways to start a Python with an environment that says nothing of us."""


def _agent(folder: Path, code: str) -> str:
    (folder / "child.py").write_text("")
    script = folder / "agent.py"
    script.write_text(f"import asyncio, os, subprocess, sys\nos.chdir({str(folder)!r})\n{code}\n")
    return str(script)


def _started(folder: Path, code: str, **env: str) -> Recorded:
    run_python([_agent(folder, code)], store=folder / "store", **launched(TRACEPARENT=PARENT, **env))  # type: ignore[arg-type]
    return read_store(folder / "store")


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_child_with_another_environment_is_recorded(way: str, tmp_path: Path) -> None:
    """However it is started, and whatever was left of the environment, the child belongs to the command."""
    recorded = _started(tmp_path, WAYS[way])
    children = [one for one in recorded.processes if one.argv[-1] == "child.py" or "spawn_main" in str(one)]
    assert [one.launch_id for one in children] == [TRACE]
    assert not recorded.notes


@pytest.mark.slow
def test_in_a_recording_an_agent_may_leave_a_child_out(tmp_path: Path) -> None:
    """What the agent says of a child itself holds; in a replay the child is played to all the same."""
    code = "subprocess.run([sys.executable, 'child.py'], env={'TRACEFORK_MODE': 'off'}, check=True)"
    assert len(_started(tmp_path, code).processes) == 1
    Tape(run_id="0" * 32, exchanges=()).dump(tmp_path / "run.tape")
    played = tmp_path / "played"
    played.mkdir()
    tape = str(tmp_path / "run.tape")
    assert [
        one.mode for one in _started(played, code, TRACEFORK_MODE="replay", TRACEFORK_TAPE=tape).processes
    ] == [
        "replay",
        "replay",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([sys.executable, "-I", "child.py"], "-I keeps Python from reading PYTHONPATH"),
        ([sys.executable, "-sE", "child.py"], "-E keeps Python from reading PYTHONPATH"),
        ([sys.executable, "-SIc", "pass"], "-S keeps Python from reading site"),
        (["env", "-i", sys.executable, "child.py"], "env starts it with an environment of its own"),
        (["./isolated"], "-I keeps Python from reading PYTHONPATH"),
    ],
)
def test_a_child_out_of_reach_is_named(words: list[str], said: str, tmp_path: Path) -> None:
    """Where no environment helps, the recording names program, place and reason; allowed ones it does not."""
    isolated = tmp_path / "isolated"
    isolated.write_text(f"#!{sys.executable} -I\n")
    isolated.chmod(0o700)
    name = "isolated" if words[0] == "./isolated" else "child.py" if "child.py" in words else "python -c"
    (note,) = _started(tmp_path, f"subprocess.run({words!r}, check=True)").notes
    assert note.kind == "incomplete"
    assert note.attributes["host"] == name
    assert said in str(note.attributes["why"])
    assert "agent.py:3" in str(note.attributes["why"])
    again = tmp_path / "again"
    again.mkdir()
    (again / "isolated").symlink_to(isolated)
    assert not _started(again, f"subprocess.run({words!r}, check=True)", TRACEFORK_ALLOW_HOSTS=name).notes


def test_an_isolated_child_that_records_itself_is_not_named(tmp_path: Path) -> None:
    """A child that calls `instrument()` is recorded; one that only says its version is nobody."""
    own = "from tracefork_otel import TraceforkInstrumentor as T; T().instrument()"
    code = f"""
subprocess.run([sys.executable, "-I", "-c", {own!r}], check=True)
subprocess.run([sys.executable, "--version"], env={{}}, check=True)
try: subprocess.run(["/nowhere/python", "-I", "x.py"])
except FileNotFoundError: pass
"""
    recorded = _started(tmp_path, code)
    assert [one.via for one in recorded.processes] == ["sitecustomize", "instrument"]
    assert not recorded.notes


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("timeout 5 python3.12 -I a.py", True),
        ("sudo -n /usr/bin/python3 a.py", True),
        ("sudo -u nobody-here nice -n 5 python a.py", True),
        ("uv run --frozen python -I a.py", True),
        ("env A=1 B=2 python -E a.py", True),
        ("A=1 python -S a.py", True),
        ("flock /tmp/lock python -I a.py", True),
        ("cd src && exec python -I a.py", True),
        ("if true; then python -I a.py; fi", True),
        ("echo 1 | sh -c 'python -I a.py'", True),
        ("timeout 5 sh -c 'python -I a.py'", True),
        ("nice -n 5 setsid bash -ec 'cd src && python -E a.py'", True),
        ("nohup env -i sh -c 'python a.py'", True),
        ("sh -c 'sh -c \"python -I a.py\"'", True),
        ("sh -c '\"$@\"' name python -I a.py", True),
        ("ls | xargs -n1 sh -c 'python -I $0'", True),
        ("env -S 'python -I a.py'", True),
        ("env --unset PYTHONPATH python a.py", True),
        ("env PYTHONPATH= python a.py", True),
        ("PYTHONPATH=src python a.py", True),
        ("export PYTHONPATH=src; python a.py", True),
        ("unset PYTHONPATH; python a.py", True),
        ("PYTHONPATH=src:$PYTHONPATH python a.py", False),
        ("PYTHONPATH=src ls; python a.py", False),
        ('x="$(python -I a.py)"', True),
        ("echo `python -I a.py`", True),
        ("P='python -I'; $P a.py", True),
        ("eval 'python -I a.py'", True),
        ("find . -name a.py -exec python -I {} ;", True),
        ("su -c 'python a.py' nobody", True),
        ("script -qc 'python -I a.py' /dev/null", True),
        ("2>/dev/null python -I a.py", True),
        ("f() { python -I a.py; }; f", True),
        ("while read x; do python -I a.py; done", True),
        ("timeout 5 sh -c 'echo \"x; python -I a.py\"'", False),
        ("timeout 5 grep -c 'python -I' a.py", False),
        ("echo 'timeout 5 sh -c \"python -I a.py\"'", False),
        ("find . -name python -I", False),
        ("echo 'unfinished", False),
        ("python3-config -I", False),
        ("echo -I", False),
        ("grep -r python -I src", False),
        ("rg python -S .", False),
        ("apt install python3 -S", False),
        ("sudo -n cp python3 -S", False),
        ("sh build.sh python -I", False),
        ("cd python -I && ls", False),
    ],
)
def test_pythons_are_told_from_arguments(line: str, named: bool) -> None:
    """The program of a command, also after those that start others; no argument, and no name only alike."""
    for event in ("os.system", "subprocess.Popen"):
        given = (line,) if event == "os.system" else ("sh", ["sh", "-c", line])
        assert any(map(leaving, commands_of(event, given))) is named
    if not set("&;|'>`") & set(line) and "=" not in line.split()[0]:
        assert any(map(leaving, commands_of("os.exec", ("path", line.split(), None)))) is named


@pytest.mark.parametrize("words", [["sh", "steps.sh"], ["timeout", "5", "./steps.sh"], ["./steps.sh"]])
def test_the_script_of_a_shell_is_read(words: list[str], tmp_path: Path) -> None:
    """A Python that it starts out of reach is named, where the script lies, however it is started."""
    script = tmp_path / "steps.sh"
    script.write_text("#!/bin/sh\nset -e\n# python -E b.py\nif true; then\n  python3 -I a.py\nfi\n")
    script.chmod(0o700)
    assert list(filter(None, map(leaving, in_scripts([words], str(tmp_path))))) == [
        ("a.py", "-I keeps Python from reading PYTHONPATH")
    ]
    assert not list(in_scripts([words], str(tmp_path / "elsewhere")))


def test_scripts_that_scripts_start_or_read_are_read_too(tmp_path: Path) -> None:
    """However deep they lie, by the folder of the one in which they are named too, and none for ever."""
    (tmp_path / "steps.sh").write_text('. ./env.sh\npython3 a.py\nbash "$(dirname "$0")"/more/inner.sh\n')
    (tmp_path / "env.sh").write_text("export PYTHONPATH=src\n. ./env.sh\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "inner.sh").write_text("python3 -I b.py; sh steps.sh\n. ./env.sh; python3 d.py\n")
    found = set(filter(None, map(leaving, in_scripts([["sh", "steps.sh"]], str(tmp_path)))))
    assert {program for program, _ in found} == {"a.py", "b.py", "d.py"}
    commands = commands_of("os.system", (". ./env.sh && python3 c.py",))
    assert {one[0] for one in filter(None, map(leaving, in_scripts(commands, str(tmp_path))))} == {"c.py"}
    (tmp_path / "env.sh").write_text("export PYTHONPATH=src:$PYTHONPATH\n")
    assert not list(filter(None, map(leaving, in_scripts(commands, str(tmp_path)))))


def test_scripts_that_start_one_another_are_read_once(tmp_path: Path) -> None:
    """Whatever they carry along, reading them takes no time to speak of."""
    for name, other in ("ab", "ba"):
        (tmp_path / name).write_text(f"export A{name}=1\n" + f". ./{other}\nsh {other}\nsh {name}\n" * 200)
    began = time.process_time()
    assert not list(filter(None, map(leaving, in_scripts([["sh", "a"]], str(tmp_path)))))
    assert time.process_time() - began < 5


def test_in_a_replay_no_line_turns_it_off() -> None:
    """What an agent may leave out of a recording on purpose leaves a replay, so it is named there."""
    (command,) = commands_of("os.system", ("TRACEFORK_MODE=off python a.py",))
    assert leaving(command) is None
    assert leaving(command, recording=False) == ("a.py", "its TRACEFORK_MODE is off")


def test_a_program_that_asks_a_model_is_named_below_launchers(tmp_path: Path) -> None:
    """Below a launcher, and in the line of a shell below one."""
    code = """
subprocess.run(["nice", "-n", "1", "claude", "-p", "x"], stderr=-3)
subprocess.run(["nice", "sh", "-c", "cd .; codex exec x"], stderr=-3)
subprocess.run(["nice", "echo", "claude"])"""
    assert [note.attributes["host"] for note in _started(tmp_path, code).notes] == ["claude", "codex"]


@pytest.mark.parametrize(
    "before",
    [("-c",), ("-ec",), ("-e", "-c"), ("--posix", "-c")],
    ids=" ".join,
)
def test_the_line_of_a_shell_is_read_whatever_stands_beside_it(before: tuple[str, ...]) -> None:
    """Options before it, names and arguments behind it: the Python of the line is found."""
    for behind in ((), ("name", "argument")):
        words = ("bash", *before, "cd /; exec python3 -I x.py", *behind)
        commands = commands_of("subprocess.Popen", ("/bin/bash", words, None, None))
        assert [leaving(command) is not None for command in commands] == [False, True]
    script = ("bash", "-e", "script.sh", "-c", "python3 -I x.py")
    assert commands_of("subprocess.Popen", ("/bin/bash", script, None, None)) == [list(script)]
