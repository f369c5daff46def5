"""Supervised commands end in time, with all that they started; recorded ones behave as if typed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tracefork_backend.agents.environment import (
    BOOT,
    executable,
    given_back,
    path_left_out,
    recordable,
    traced,
    working_directory,
)
from tracefork_backend.agents.output import OUTPUT_HEAD, OUTPUT_TAIL
from tracefork_backend.agents.reach import short_name, why_nothing
from tracefork_backend.agents.supervise import Stopper, run_command
from tracefork_backend.rerun.reconstruct import script_folder
from tracefork_backend.store.absent import Absent

from tracefork_otel import AgentFailed
from tracefork_otel.redaction.hidden import DUMMY
from tracefork_otel.redaction.redact import Redactor
from tracefork_otel.session.interpreter import isolating_option, program_of
from tracefork_otel.settings import Settings
from tracefork_otel.tape.start import HowStarted


def python(code: str) -> list[str]:
    """A command that runs this code, with no site-packages so that it starts fast."""
    return [sys.executable, "-I", "-S", "-c", code]


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether the condition became true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("", 0),
        ("raise SystemExit(5)", 5),
        ("1/0", 1),
        ("import os; os.kill(os.getpid(), 9)", 137),
        ("import os; os.abort()", 134),
    ],
)
def test_exit_statuses(code: str, status: int) -> None:
    """A status is the command's own, 128+n for signals."""
    assert run_command(python(code)).exit_status == status


@pytest.mark.parametrize("size", [0, 5, 2**16, 2**20, pytest.param(2**26, marks=pytest.mark.slow)])
def test_piped_input_comes_whole(size: int) -> None:
    """By a pipe that ends, or where none has room for it, by a file."""
    code = "import sys, os, stat; print(len(sys.stdin.read()), stat.S_ISFIFO(os.fstat(0).st_mode))"
    read, by_pipe = run_command(python(code), stdin=b"x" * size, stdin_kind="pipe").stdout.split()
    assert int(read) == size
    assert by_pipe == "True" if size <= 2**16 else by_pipe in ("True", "False")


def test_a_closed_input_is_closed() -> None:
    """As the shell's `<&-` has it: Python has no `sys.stdin` then."""
    assert run_command(python("import sys; print(sys.stdin)"), stdin_kind="closed").stdout == "None\n"


def test_streams_and_stdin() -> None:
    """Both streams come apart, stdin is what was given or at its end, the environment is as told."""
    code = "import sys, os; print(sys.stdin.read(), os.environ['A']); print('bad', file=sys.stderr)"
    finished = run_command(python(code), stdin=b"given", env={"A": "ü"})
    assert (finished.stdout, finished.stderr) == ("given ü\n", "bad\n")
    assert run_command(python("print(repr(open(0).read()))")).stdout == "''\n"


def test_output_is_bounded() -> None:
    """Of 20 MB the beginning and the end are kept, and the rest is counted."""
    code = "import sys\nfor n in range(20): sys.stdout.write(str(n % 10) * (1 << 20))"
    output = run_command(python(code)).stdout
    assert output.startswith("0" * 1000)
    assert output.endswith("9" * 1000)
    assert len(output) < OUTPUT_HEAD + OUTPUT_TAIL + 100
    assert f"\n... {(20 << 20) - OUTPUT_HEAD - OUTPUT_TAIL} bytes left out ...\n" in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "status"),
    [("while True: pass", 143), ("import signal; signal.signal(15, signal.SIG_IGN)\nwhile True: pass", 137)],
)
def test_a_time_limit_is_kept(code: str, status: int) -> None:
    """A command that goes on is ended, politely and then not."""
    finished = run_command(python(code), timeout=0.4, grace=0.4)
    assert (finished.reason, finished.exit_status) == ("timeout", status)
    assert finished.seconds < 60


ESCAPES = {
    "background": "sleep 300 & echo $!",
    "own session": "setsid sleep 300 & echo $!",
    "no mark in its environment": "setsid env -i sleep 300 & echo $!",
    "orphan": "(setsid sleep 300 & echo $!) ; true",
    "closed streams": "(setsid sh -c 'echo $$; exec sleep 300 >&- 2>&- <&-' &) ; sleep 0.2",
    "holds our pipe": "setsid sh -c 'trap : TERM; while :; do sleep 300; done' & echo $!",
}


@pytest.mark.skipif(sys.platform != "linux", reason="a subreaper is Linux's")
@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_is_left(name: str) -> None:
    """Whatever a command leaves running, in whichever session, is gone when the call returns."""
    finished = run_command(["/bin/sh", "-c", ESCAPES[name]], grace=0.5)
    pid = int(finished.stdout)
    assert not alive(pid)
    assert finished.exit_status == 0
    assert finished.swept >= 1


def test_a_child_that_ends_by_itself_is_no_remainder() -> None:
    """What ends within a moment of its parent is not ended, nor counted."""
    assert run_command(["/bin/sh", "-c", "sleep 0.05 &"]).swept == 0


def test_a_command_that_is_none() -> None:
    """A missing program, a folder, or a missing working directory is the agent's failure, named."""
    for argv in (["no-such-program"], ["/"]):
        with pytest.raises(AgentFailed, match="cannot start"):
            run_command(argv)
    with pytest.raises(AgentFailed, match="nowhere"):
        run_command(["true"], cwd="/nowhere")


def test_an_interrupted_call_ends_the_tree(tmp_path: Path) -> None:
    """An exception in the caller, such as Ctrl-C, ends the command before it goes on its way."""
    pid_file = tmp_path / "pid"

    def interrupt() -> None:
        assert until(lambda: pid_file.exists() and pid_file.read_text().strip() != "", 30)
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        run_command(["/bin/sh", "-c", f"echo $$ > {pid_file}; exec sleep 300"])
    interrupting.join()
    assert not alive(int(pid_file.read_text()))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_director_that_dies_takes_its_command_along(tmp_path: Path, number: int) -> None:
    """However the calling process ends, its command does not outlive it."""
    code = (
        "from tracefork_backend.agents.supervise import run_command\n"
        f"run_command(['/bin/sh', '-c', 'echo $$ > {tmp_path}/pid; setsid sleep 300 & sleep 300'], grace=0.3)"
    )
    director = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    pid_file = tmp_path / "pid"
    assert until(lambda: pid_file.exists() and pid_file.read_text().strip() != "", 30)
    pid = int(pid_file.read_text())
    os.kill(director.pid, number)
    director.wait(10)
    assert until(lambda: not alive(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="a parent-death signal is Linux's")
def test_a_supervisor_that_is_killed_takes_its_command_along(tmp_path: Path) -> None:
    """Whoever kills the process in between ends the command, and the caller is told."""
    pid_file = tmp_path / "pid"
    with pytest.raises(AgentFailed, match="supervisor"):
        run_command(["/bin/sh", "-c", f"echo $$ > {pid_file}; kill -9 $PPID; exec sleep 300"])
    assert until(lambda: not alive(int(pid_file.read_text())))


def test_many_at_once_from_threads_that_end() -> None:
    """Concurrent calls from several threads each get the status of their own command."""
    statuses: dict[int, int] = {}

    def run(n: int) -> None:
        statuses[n] = run_command(python(f"import time; time.sleep(0.2); raise SystemExit({n})")).exit_status

    threads = [threading.Thread(target=run, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == {n: n for n in range(6)}


# --- the environment ---


def test_the_traced_environment(tmp_path: Path) -> None:
    """The boot folder comes first on PYTHONPATH, once; a replay takes over none of the caller's settings."""
    base = {
        "PYTHONPATH": f"{BOOT}{os.pathsep}mine",
        "TRACEFORK_REDACT_HEADERS": "x",
        "TRACEFORK_JAEGER_UI": "here",
        "TRACESTATE": "t",
        "A": "1",
    }
    settings = Settings(store=tmp_path, redact_headers=("x",), ignore=("a.b", "c"), seal=False)
    env = traced(base, settings, launch=("a" * 32, "b" * 16))
    assert env["PYTHONPATH"] == f"{BOOT}{os.pathsep}mine"
    assert env["TRACEPARENT"] == f"00-{'a' * 32}-{'b' * 16}-01"
    assert (env["TRACEFORK_MODE"], env["TRACEFORK_STORE"], env["A"]) == ("record", str(tmp_path), "1")
    assert Settings.from_env(env) == settings
    assert env["TRACEFORK_JAEGER_UI"] == "here"
    assert "TRACESTATE" not in env
    replaying = traced(base, Settings(mode="replay", store=tmp_path), launch=("a" * 32, "b" * 16))
    assert not {"TRACEFORK_REDACT_HEADERS", "TRACEFORK_JAEGER_UI"} & replaying.keys()
    assert "TRACEFORK_STORE" not in traced(base, Settings(mode="off"))


def test_what_is_recorded_of_an_environment() -> None:
    """Only what a replay gives back is recorded: not the machine's own variables, and no secret's value."""
    environ = {
        "CITY": "Osaka",
        "PATH": "/x",
        "HOME": "/x",
        "PYTHONPATH": "/x",
        "MY_API_KEY": "k",
        "SSH_AUTH_KEY": "k",
    }
    assert recordable(environ, Redactor()) == ({"CITY": "Osaka", "PYTHONPATH": "/x"}, ("MY_API_KEY",))


def test_the_recorded_environment_is_given_back(tmp_path: Path) -> None:
    """Recorded values come back but for the machine's own; an unset secret gets a dummy, a set one stays."""
    start = HowStarted(
        environment={"CITY": "Osaka", "PATH": "/recorded", "SSL_CERT_FILE": "/recorded", "https_proxy": "x"},
        withheld=("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "SSH_AUTH_SOCK"),
    )
    env = given_back(start, {"CITY": "Tokyo", "PATH": "/here", "OPENAI_API_KEY": "real"}, tmp_path)
    assert env == {"CITY": "Osaka", "PATH": "/here", "OPENAI_API_KEY": "real", "ANTHROPIC_API_KEY": DUMMY}


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "PYTHONHOME",
        "PythonBreakpoint",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "DYLD_INSERT_LIBRARIES",
        "BASH_ENV",
        "BASH_FUNC_ls%%",
        "NODE_OPTIONS",
        "PERL5OPT",
        "RUBYOPT",
        "JAVA_TOOL_OPTIONS",
        "GIT_SSH_COMMAND",
        "GIT_CONFIG_COUNT",
        "EDITOR",
        "PAGER",
        "GCONV_PATH",
        "https_proxy",
        "All_Proxy",
        "WS_PROXY",
        "TRACEFORK_TAPE",
        "TRACEFORK_TRUST",
    ],
)
def test_what_decides_what_is_loaded_is_never_given_back(name: str, tmp_path: Path) -> None:
    """Neither its value nor a dummy for it comes from a recording; what the shell has stays."""
    start = HowStarted(environment={name: "/recorded", "CITY": "Osaka"}, withheld=(name,))
    assert given_back(start, {}, tmp_path) == {"CITY": "Osaka"}
    assert given_back(start, {name: "here"}, tmp_path) == {name: "here", "CITY": "Osaka"}


def test_the_seed_of_a_recording_is_given_back_if_it_is_one(tmp_path: Path) -> None:
    """A number keeps sets in the recorded order; anything else is none."""
    for value, given in (("7", {"PYTHONHASHSEED": "7"}), ("random", {}), ("7\n", {}), ("", {})):
        assert given_back(HowStarted(environment={"PYTHONHASHSEED": value}), {}, tmp_path) == given


def test_a_module_path_that_was_recorded_is_named() -> None:
    """What is not taken from the recording can be said, but for a boot folder and for what is here."""
    recorded = os.pathsep.join((str(BOOT), "src", "lib"))
    start = HowStarted(environment={"PYTHONPATH": recorded})
    assert path_left_out(start, {"PYTHONPATH": "lib"}) == "src"
    assert path_left_out(start, {"PYTHONPATH": f"lib{os.pathsep}src"}) is None


def test_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store's run starts where it was recorded; a tape file in the checkout that it is called in."""
    recorded, here = tmp_path / "recorded", tmp_path / "here"
    for folder in (recorded, here):
        folder.mkdir()
        (folder / "agent.py").touch()
    monkeypatch.chdir(here)
    start = HowStarted(command=("python", "agent.py"), cwd=str(recorded))
    assert working_directory(start, portable=False) == recorded
    assert working_directory(start, portable=True) == here
    (here / "agent.py").unlink()
    assert working_directory(start, portable=True) == recorded
    assert working_directory(HowStarted(cwd="/gone"), portable=False) == here


def test_an_interpreter_of_another_machine() -> None:
    """A recorded interpreter that is not there is replaced; everything else stays as it was."""
    assert executable(["/gone/bin/python3", "a.py"])[1:] == ("a.py",)
    assert os.path.exists(executable(["/gone/bin/python3", "a.py"])[0])
    assert executable(["python", "a.py"]) == ("python", "a.py")
    assert executable(["/gone/tool"]) == ("/gone/tool",)


def test_the_script_folder_is_importable() -> None:
    """An agent's function in a script is found in that script's folder."""
    start = HowStarted(command=("python", "app/agent.py"), environment={"PYTHONPATH": "/lib"})
    assert script_folder(start) == "app"
    assert script_folder(HowStarted(script="app")) == "app"
    assert script_folder(HowStarted()) is None
    env = given_back(HowStarted(script="app"), {"PYTHONPATH": "mine"}, Path("/srv"))
    assert env == {"PYTHONPATH": f"/srv/app{os.pathsep}mine"}


# --- why nothing was captured ---


@pytest.mark.parametrize(
    ("argv", "option"),
    [
        (["python", "-I", "a.py"], (1, "I")),
        (["/usr/bin/python3.11", "-sE", "a.py"], (1, "E")),
        (["python", "-W", "ignore", "-S", "a.py"], (3, "S")),
        (["python", "a.py", "-I"], None),
        (["python", "-c", "-I"], None),
        (["python", "-m", "pkg", "-E"], None),
        (["node", "-I"], None),
        (["python"], None),
    ],
)
def test_isolating_options(argv: list[str], option: tuple[int, str] | None) -> None:
    """Only the interpreter's own options count, alone or in a bundle."""
    assert isolating_option(argv) == option


def test_why_nothing_was_captured() -> None:
    """Each cause has its own line, which says what to do."""
    assert "tracefork-otel run -- python a.py" in why_nothing(["python", "-I", "a.py"], [], [])
    assert "tracefork-otel run -- python -s a.py" in why_nothing(["python", "-sE", "a.py"], [], [])
    other = why_nothing(["node", "a.js"], [], [])
    assert "no Python process was reached from 'node'" in other
    assert "tracefork-otel run --proxy -- node a.js" in other
    absent = [Absent(executable="/opt/venv/bin/python")]
    assert "/opt/venv/bin/python -m pip install tracefork-otel" in why_nothing(["x"], [], absent)


@pytest.mark.parametrize(
    ("argv", "program", "name"),
    [
        (["python", "-X", "dev", "app/agent.py", "--city", "Osaka"], "agent.py", "agent.py --city Osaka"),
        (["python3", "-m", "app.agent", "x"], "app.agent", "app.agent x"),
        (["python", "-c", "print(1)"], "python -c", "python -c"),
        (["/usr/bin/uv", "run", "a.py"], "uv", "uv run a.py"),
        (["python", "-Ic", "print(1)"], "python -c", "python -c"),
        (["python", "-um", "app.agent"], "app.agent", "app.agent"),
        (["python"], "python", "python"),
    ],
)
def test_names_of_commands(argv: list[str], program: str, name: str) -> None:
    """A command is named by what it runs, without interpreter and folders."""
    assert program_of(argv) == program
    assert short_name(argv) == name


def test_what_is_stopped_at_once_does_nothing_more(tmp_path: Path) -> None:
    """Its handler of SIGTERM does not run, nor is it waited for."""
    ready, said = tmp_path / "ready", tmp_path / "said"
    script = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: pathlib.Path(sys.argv[2]).touch())\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "time.sleep(100)\n"
    )
    stopper = Stopper()
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(
            run_command, [sys.executable, "-c", script, str(ready), str(said)], stopper=stopper, grace=60.0
        )
        while not ready.exists() and not running.done():
            time.sleep(0.01)
        stopper.stop(at_once=True)
        done = running.result()
    assert (done.reason, done.exit_status) == ("stopped", 128 + signal.SIGKILL)
    assert not said.exists()
