"""Forks of a recorded program from a process that imported what is installed: as from a fresh start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import Desk, alive, at_desk
from tracefork_backend.agents.program import python_program
from tracefork_backend.rerun.edits import noop, text
from tracefork_backend.rerun.forker import Fork, Forker, Planned

TELL = """
import json, pickle, re
def plain(value):
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))
class Mine:
    pass
def tell():
    import helper
    main = sys.modules["__main__"]
    print(json.dumps({
        "argv": sys.argv, "orig_argv": sys.orig_argv, "name": __name__, "file": globals().get("__file__"),
        "path": sys.path, "flags": repr(sys.flags), "cwd": os.getcwd(), "main": main.__dict__ is globals(),
        "spec": plain(getattr(main, "__spec__", 0)), "code": tell.__code__.co_filename, "doc": __doc__,
        "pickled": type(pickle.loads(pickle.dumps(Mine()))) is Mine,
        "helper": helper.__file__,
        "stdin": [sys.stdin.encoding, sys.stdin.errors, sys.stdin.read()],
        "streams": [
            [one.encoding, one.errors, one.line_buffering, one.write_through]
            for one in (sys.stdout, sys.stderr)
        ],
        "environment": sorted(os.environ),
        "threads": __import__("threading").active_count(),
        "signals": [plain(__import__("signal").getsignal(n)) for n in (2, 13, 15, 17)],
    }))
say("a")
say("b")
tell()
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk with a module beside the agent's."""
    (tmp_path / "helper.py").write_text("")
    with at_desk(tmp_path, monkeypatch) as made:
        yield made


def both(desk: Desk, *, warm_at: int = 1) -> tuple[Fork, Fork]:
    """The same fork from a fresh start, and from a warm process, after a run told what to import."""
    run = desk.run()
    with Forker(run, warm=False) as forker:
        fresh = forker.fork(1, text("x"))
    with Forker(run) as forker:
        *_, warm = forker.forks([Planned(change=text("x").bind(forker.tape, 1))] * (1 + warm_at))
        assert forker._stage.way.is_warm  # type: ignore[union-attr]
    return fresh, warm


def same(fresh: Fork, warm: Fork) -> dict[str, object]:
    """What both print, which is the same."""
    assert fresh.problem is None, fresh.problem
    assert warm.problem is None, warm.problem
    assert [one.request.body for one in warm.run.exchanges] == [
        one.request.body for one in fresh.run.exchanges
    ]
    assert (warm.exit_status, warm.stderr) == (fresh.exit_status, fresh.stderr)
    told = [json.loads(one.stdout.splitlines()[-1]) for one in (fresh, warm)]
    assert told[1] == told[0]
    return told[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("agent.py",),
        ("./agent.py", "one", "-m", "two"),
        ("-m", "agent", "x"),
        ("-m", "pack", "x"),
        ("-c", "import agent", "y"),
        ("-u", "-X", "utf8", "-W", "ignore", "-O", "sub/linked.py", "z"),
    ],
    ids=" ".join,
)
def test_what_a_program_sees_is_the_same(desk: Desk, command: tuple[str, ...]) -> None:
    """Its words, files, streams, modules' places, environment and signals; and it asks the same."""
    desk.write(TELL)
    for folder in ("sub", "pack"):
        (desk.folder / folder).mkdir()
    (desk.folder / "sub" / "linked.py").symlink_to("../agent.py")
    (desk.folder / "pack" / "__main__.py").write_text('"""A package."""\n' + desk.talk + TELL)
    desk.record(sys.executable, *command)
    told = same(*both(desk))
    assert told["main"] == (command[0] != "-c")


@pytest.mark.slow
def test_an_installed_program_and_its_input(desk: Desk) -> None:
    """A script that its first line has a Python run, with a pipe to read from."""
    (desk.folder / "agent").write_text(f"#!{sys.executable} -u\n" + desk.talk + TELL)
    (desk.folder / "agent").chmod(0o755)
    program = Path(sys.executable).with_name("tracefork-otel")
    command = [program, "run", "--store", "store", "--", "./agent", "now"]
    subprocess.run(command, input="given\n\u00e9".encode(), check=True)
    told = same(*both(desk))
    assert told["stdin"][2] == "given\n\u00e9"  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize(
    "end",
    [
        "raise ValueError('lost')",
        "sys.exit('in words')",
        "sys.exit(7)",
        "sys.exit()",
        "raise KeyboardInterrupt",
    ],
)
def test_ends_are_the_same(desk: Desk, end: str) -> None:
    """Exit status, and what a program says of its error and at its end."""
    desk.recorded("say('a')\nsay('b')")
    desk.write(f"import atexit\natexit.register(print, 'end')\nsay('a')\nsay('b')\n{end}\n")
    fresh, warm = both(desk)
    told = [(one.exit_status, one.stdout, one.stderr, one.steps, str(one.problem)) for one in (fresh, warm)]
    assert told[0] == told[1]
    assert told[0][1] == "end\n"


@pytest.mark.slow
def test_a_program_that_tells_nothing(desk: Desk) -> None:
    """One that ends without its interpreter's end starts anew each time."""
    run = desk.recorded("say('a')\nsay('b')\nos._exit(3)")
    with Forker(run) as forker:
        made = forker.forks([Planned(change=noop().bind(forker.tape, 1))] * 2)
        assert not forker._stage.way.is_warm  # type: ignore[union-attr]
    assert [(one.exit_status, one.problem, one.notes) for one in made] == [(3, None, ())] * 2


@pytest.mark.slow
def test_a_file_that_is_no_python_any_more(desk: Desk) -> None:
    """It is read anew by each fork, and its error said as Python says it."""
    run = desk.recorded("say('a')\nsay('b')")
    with Forker(run) as forker:
        forker.forks([Planned(change=noop().bind(forker.tape, 1))] * 2)
        desk.write("1 +\n")
        made = forker.fork(1, noop())
    assert "SyntaxError" in str(made.problem)


@pytest.mark.slow
def test_what_is_imported_sees_the_environment_that_it_saw(desk: Desk) -> None:
    """A variable that the program sets before an import is there while that is imported; then it is not."""
    (site := desk.folder / "site").mkdir()
    (site / "reads.py").write_text(
        "import os\nFOUND = os.environ.get('SET_BEFORE')\nGONE = os.environ.get('GONE')\n"
    )
    body = """
    assert "SET_BEFORE" not in os.environ and os.environ["GONE"] == "here"
    os.environ["SET_BEFORE"] = "yes"
    del os.environ["GONE"]
    import site; site.addsitedir("site")
    import reads
    say("a"); say(str((reads.FOUND, reads.GONE)))
    print("{}")
    """
    desk.write(body)
    os.environ["GONE"] = "here"
    try:
        desk.record()
        fresh, warm = both(desk)
    finally:
        del os.environ["GONE"]
    same(fresh, warm)
    assert warm.run.exchanges[1].request.body == fresh.run.exchanges[1].request.body


@pytest.mark.slow
def test_its_own_files_are_read_each_time(desk: Desk) -> None:
    """Modules beside a program are its own: one that changes is another in the next fork."""
    (desk.folder / "helper.py").write_text("WORD = 'one'")
    run = desk.recorded("import helper\nsay('a')\nsay('b')\nprint(helper.WORD)")
    with Forker(run) as forker:
        first = forker.forks([Planned(change=noop().bind(forker.tape, 1))] * 2)
        (desk.folder / "helper.py").write_text("WORD = 'another'")
        second = forker.fork(1, noop())
        pool = forker._stage.way._pool  # type: ignore[union-attr]
        assert pool is not None
        pid = pool.pid
    assert [one.stdout for one in (*first, second)] == ["one\n", "one\n", "another\n"]
    assert not alive(pid)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("import threading\nthreading.Timer(999, print).start()", "threads"),
        ("import sqlite3\nkept = sqlite3.connect('kept.db')", "opens a database"),
        ("import own_one", "of the agent's own (own_one)"),
        ("import sys\nif not hasattr(sys, 'once'): raise OSError('only once')", "only once"),
    ],
)
def test_what_cannot_be_shared_starts_anew(desk: Desk, module: str, why: str) -> None:
    """What forks would share of an import is refused, and that is said."""
    place = Path(
        subprocess.check_output(
            [sys.executable, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    name = f"tracefork_test_{os.getpid()}"
    (desk.folder / "own_one.py").write_text("")
    (place / f"{name}.py").write_text(module)
    try:
        ending = "[one.cancel() for one in threading.enumerate() if hasattr(one, 'cancel')]"
        run = desk.recorded(f"import threading\nsys.once = True\nimport {name}\nsay('a')\nsay('b')\n{ending}")
        with Forker(run) as forker:
            made = forker.forks([Planned(change=noop().bind(forker.tape, 1))] * 3)
    finally:
        (place / f"{name}.py").unlink()
    assert [one.problem for one in made] == [None] * 3
    assert made[0].notes == ()
    assert why in made[-1].notes[0]
    assert "started its agent anew" in made[-1].notes[0]


@pytest.mark.slow
def test_a_warm_process_that_is_killed(desk: Desk) -> None:
    """The forks after it start anew and say why."""
    run = desk.recorded("say('a')\nsay('b')")
    with Forker(run) as forker:
        forker.forks([Planned(change=noop().bind(forker.tape, 1))] * 2)
        os.kill(forker._stage.way._pool.pid, signal.SIGKILL)  # type: ignore[union-attr]
        made = forker.fork(1, noop())
    assert made.problem is None
    assert "is gone" in made.notes[0]


def test_which_commands_a_python_runs(tmp_path: Path) -> None:
    """A script, a module, code; not what another Python would run otherwise."""
    (tmp_path / "agent.py").write_text("")
    (tmp_path / "folder").mkdir()
    found = {}
    lines = """python agent.py a -x|python3.11 -u -Wignore -X dev agent.py|python -m pack.mod -c
        |python -c pass b|python|python -|python -i agent.py|python -I agent.py|python -Im pack|python folder
        |python -m|python -V|python missing.py|node agent.mjs|python -x agent.py|./agent.py"""
    for line in map(str.strip, lines.split("|")):
        one = python_program(line.split(), env={}, folder=tmp_path, imported=tmp_path / "told")
        found[line] = one and (one.python, one.runs, one.of, one.arguments)
    assert {line: one for line, one in found.items() if one} == {
        "python agent.py a -x": (("python",), "script", "agent.py", ("a", "-x")),
        "python3.11 -u -Wignore -X dev agent.py":
            (("python3.11", "-u", "-Wignore", "-X", "dev"), "script", "agent.py", ()),
        "python -m pack.mod -c": (("python",), "-m", "pack.mod", ("-c",)),
        "python -c pass b": (("python",), "-c", "pass", ("b",)),
    }  # fmt: skip


@pytest.mark.slow
def test_recorded_draws_are_served(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the program and its own modules drew, while they were imported too, up to the forked step."""
    (desk.folder / "helper.py").write_text(
        "import random, time, uuid\nAT = time.time(), uuid.uuid4(), random.random()"
    )
    monkeypatch.setenv("TRACEFORK_DRAWS", "1")
    run = desk.recorded(
        "import helper, uuid\nfor _ in '123': say(f'{uuid.uuid4()} {helper.AT}')\nprint(uuid.uuid4())"
    )
    monkeypatch.delenv("TRACEFORK_DRAWS")
    with Forker(run) as forker:
        made = forker.forks([Planned(change=text("x").bind(forker.tape, 2))] * 3)
        assert forker._stage.way.is_warm  # type: ignore[union-attr]
    recorded = [one.request.body for one in run.exchanges]
    assert [[one.request.body for one in fork.run.exchanges] for fork in made] == [recorded] * 3
    assert len({fork.stdout for fork in made}) == 3
