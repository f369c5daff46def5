"""The warm process: what it refuses, that its trials share nothing, and that nothing of them is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from forked import Desk, alive, at_desk
from tracefork_backend.agents.pool import Refused, WarmPool
from tracefork_backend.agents.supervise import Finished, Stopper
from tracefork_backend.rerun.edits import noop, text
from tracefork_backend.rerun.forker import Forker, Planned
from tracefork_backend.rerun.forking import fork

from tracefork_otel import AgentFailed, Tape

Start = Callable[[str], WarmPool]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a warm process that imported the `fn` of this module text; it is ended by the test's end."""
    Tape(run_id="0" * 32, exchanges=()).dump(tmp_path / "tape")
    pools: list[WarmPool] = []

    def start(body: str) -> WarmPool:
        (tmp_path / "warm_agent.py").write_text(textwrap.dedent(body))
        env = {name: value for name, value in os.environ.items() if not name.startswith("TRACE")}
        pools.append(WarmPool("warm_agent:fn", env=env, cwd=tmp_path, tape=tmp_path / "tape"))
        return pools[-1]

    yield start
    for pool in pools:
        pool.close()
        assert not alive(pool.pid)


def trial(
    pool: WarmPool, *args: Any, timeout: float = 30, stopper: Stopper | None = None, **env: str
) -> Finished:
    """One call of the agent in a child, which records nothing."""
    given = {**os.environ, "TRACEFORK_MODE": "off", **env}
    return pool.run(env=given, arguments={"args": args}, timeout=timeout, stopper=stopper)


def test_trials_start_where_the_import_ended(start: Start) -> None:
    """The module is imported once; each trial has its own arguments, environment and copy of the rest."""
    pool = start("""
        import os, sys
        print("imported", file=sys.stderr)
        seen = []
        def fn(word):
            seen.append(word)
            print(os.getpid(), os.environ["MARK"], *seen)
            print(word, file=sys.stderr)
    """)
    made = [trial(pool, word, MARK=f"m{word}") for word in "abc"]
    said = [one.stdout.split() for one in made]
    assert [words[1:] for words in said] == [["ma", "a"], ["mb", "b"], ["mc", "c"]]
    assert len({words[0] for words in said}) == 3
    assert [one.stderr for one in made] == ["a\n", "b\n", "c\n"]
    assert [(one.exit_status, one.reason, one.swept) for one in made] == [(0, "exit", 0)] * 3


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("raise ValueError('broken')", 1, "ValueError: broken"),
        ("sys.exit(7)", 7, ""),
        ("sys.exit('a word')", 1, "a word"),
        ("os.kill(os.getpid(), 9)", 137, ""),
        ("os.abort()", 134, ""),
        ("raise KeyboardInterrupt", 1, "KeyboardInterrupt"),
    ],
)
def test_how_a_trial_ends(start: Start, body: str, status: int, words: str) -> None:
    """Errors, exit statuses and signals are those of a fresh start."""
    pool = start(f"import os, sys\ndef fn():\n    print('begun')\n    {body}")
    made = trial(pool)
    assert (made.exit_status, made.reason) == (status, "exit")
    assert words in made.stderr
    assert "_zygote" not in made.stderr or "KeyboardInterrupt" in words
    if "kill" not in body and "abort" not in body:
        assert made.stdout == "begun\n"


def test_a_trial_ends_as_a_process_does(start: Start) -> None:
    """Threads are waited for, exit hooks run, and a coroutine function is awaited."""
    pool = start("""
        import asyncio, atexit, threading, time
        atexit.register(lambda: print("hook of the import"))
        def late():
            time.sleep(0.1); print("thread")
        async def fn():
            atexit.register(lambda: print("hook of the trial"))
            threading.Thread(target=late).start()
            await asyncio.sleep(0)
            print("done")
    """)
    assert trial(pool).stdout.split("\n")[:4] == [
        "done",
        "thread",
        "hook of the trial",
        "hook of the import",
    ]


def test_trials_do_not_share_chance(start: Start) -> None:
    """Two trials draw different numbers, though the generator was seeded before they were forked."""
    pool = start("import random\nrandom.seed(1)\ndef fn(): print(random.random())")
    assert trial(pool).stdout != trial(pool).stdout


def test_input_is_at_its_end(start: Start) -> None:
    """A trial that asks for input gets an end of file, and finds no descriptor of ours."""
    pool = start("""
        import os, sys
        def fn():
            print(repr(sys.stdin.read()))
            kept = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if int(n) > 2
                    and os.path.exists(f"/proc/self/fd/{n}")]
            print([name for name in kept if name.startswith(("socket:", "pipe:"))])
    """)
    assert trial(pool).stdout == "''\n[]\n"


@pytest.mark.slow
def test_sixteen_at_once(start: Start) -> None:
    """Trials run at once from several threads, each with its own output, not one after the other."""
    pool = start("import time\ndef fn(n):\n    time.sleep(1.5)\n    print(n)")
    started = time.monotonic()
    with ThreadPoolExecutor(16) as executor:
        made = list(executor.map(lambda n: trial(pool, n), range(16)))
    assert [one.stdout for one in made] == [f"{n}\n" for n in range(16)]
    assert time.monotonic() - started < 16 * 1.5


def test_a_time_limit_ends_the_whole_tree(start: Start) -> None:
    """A child in a session of its own is ended with the trial; the warm process goes on."""
    pool = start("""
        import os, subprocess, time
        def fn(seconds):
            child = subprocess.Popen(["sleep", "300"], start_new_session=True)
            print(os.getpid(), child.pid, flush=True)
            time.sleep(seconds)
    """)
    made = trial(pool, 300, timeout=0.7)
    assert (made.reason, made.exit_status) == ("timeout", 143)
    left = trial(pool, 0)
    assert (left.reason, left.exit_status, left.swept) == ("exit", 0, 1)
    for one in (made, left):
        assert not any(alive(int(word)) for word in one.stdout.split())


def test_a_stopper_ends_what_runs(start: Start) -> None:
    """All trials under it end, and one that starts afterwards ends at once."""
    pool = start("import time\ndef fn():\n    print('begun', flush=True)\n    time.sleep(300)")
    stopper = Stopper()
    with ThreadPoolExecutor(3) as executor:
        running = [executor.submit(trial, pool, stopper=stopper) for _ in range(3)]
        time.sleep(0.5)
        stopper.stop()
        assert [one.result(20).reason for one in running] == ["stopped"] * 3
    assert trial(pool, stopper=stopper).reason == "stopped"


LISTENING = "import socket\nlistener = socket.create_server(('127.0.0.1', 0))"
REFUSED = {
    "import threading, time\n"
    "threading.Thread(target=time.sleep, args=(9,), daemon=True, name='my own').start()": (
        "starts threads (my own)"
    ),
    LISTENING: "leaves a socket open",
    "import sqlite3\nkept = sqlite3.connect('a.db')": "opens a database (a.db)",
    f"{LISTENING}\nc = socket.create_connection(listener.getsockname())": "connects to 127.0.0.1:",
    "import httpx2, os\n"
    "try: httpx2.get(os.environ['URL'])\n"
    "except httpx2.HTTPError: pass": "connects to 127.0.0.1:9 while",
    "import subprocess\nchild = subprocess.Popen(['sleep', '300'])": "starts processes",
    "raise RuntimeError('at import')": "cannot be imported (RuntimeError: at import)",
    "import os\nos._exit(3)": "that was to import warm_agent:fn ended",
}


@pytest.mark.parametrize(("body", "why"), REFUSED.items())
def test_what_cannot_be_forked_is_refused(
    start: Start, body: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads, connections, children and calls of an import are named; nothing of the process is left."""
    monkeypatch.setenv("URL", "http://127.0.0.1:9/")
    with pytest.raises(Refused) as refused:
        start(f"{body}\ndef fn(): pass")
    assert why in str(refused.value)


def test_a_unix_connection_is_refused(start: Start, tmp_path: Path) -> None:
    """A connection to another program on this machine is shared as badly as any other."""
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listening = tmp_path / "peer"
        listener.bind(str(listening))
        listener.listen()
        connected = f"import socket\nc = socket.socket(socket.AF_UNIX)\nc.connect({str(listening)!r})"
        with pytest.raises(Refused, match="a connection to"):
            start(f"{connected}\ndef fn(): pass")


@pytest.mark.slow
def test_what_an_import_may_leave(start: Start) -> None:
    """A client that was never used, an OTel provider with its worker, and a pair of sockets are no reason."""
    pool = start("""
        import socket, httpx2
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
        trace.set_tracer_provider(provider)
        client, pair = httpx2.Client(), socket.socketpair()
        def fn():
            with trace.get_tracer("mine").start_as_current_span("in the trial"): pass
    """)
    made = trial(pool)
    assert made.exit_status == 0, made.stderr
    assert made.stdout.count('"name": "in the trial"') == 1


@pytest.mark.slow
def test_an_import_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up after its time, with whatever it started."""
    Tape(run_id="0" * 32, exchanges=()).dump(tmp_path / "tape")
    (tmp_path / "hangs.py").write_text(
        "import os, subprocess, time\nchild = subprocess.Popen(['sleep', '300'])\n"
        "open('pids', 'w').write(f'{os.getpid()} {child.pid}')\ntime.sleep(300)"
    )
    monkeypatch.setattr("tracefork_backend.agents.pool.IMPORT_S", 1)
    with pytest.raises(Refused, match="not imported within 1 s"):
        WarmPool("hangs:fn", env=os.environ, cwd=tmp_path, tape=tmp_path / "tape")
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    # What is killed and not ours to wait for is gone a moment later.
    deadline = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(alive, pids))


def test_a_warm_process_that_died(start: Start) -> None:
    """Trials that run go on; another one is refused."""
    pool = start("import time\ndef fn(): time.sleep(0.6); print('whole')")
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(trial, pool)
        time.sleep(0.3)
        os.kill(pool.pid, signal.SIGKILL)
        assert running.result(20).stdout == "whole\n"
    with pytest.raises(Refused, match="is gone"):
        trial(pool)


def test_a_killed_director_leaves_nothing(tmp_path: Path) -> None:
    """After kill -9 of who started it, the warm process and its trials end."""
    Tape(run_id="0" * 32, exchanges=()).dump(tmp_path / "tape")
    (tmp_path / "sleeper.py").write_text(
        "import os, time\ndef fn():\n    open('pid', 'w').write(str(os.getpid()))\n    time.sleep(300)"
    )
    code = """
import os
from pathlib import Path
from tracefork_backend.agents.pool import WarmPool
pool = WarmPool("sleeper:fn", env=os.environ, cwd=Path.cwd(), tape=Path("tape"))
print(pool.pid, flush=True)
pool.run(env={**os.environ, "TRACEFORK_MODE": "off"}, arguments=None, timeout=None)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(process.stdout.readline())]
    deadline = time.monotonic() + 20
    while (
        not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()) and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    pids.append(int((tmp_path / "pid").read_text()))
    process.kill()
    process.communicate()
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))


# --- forks from a warm process ---

CALLED = """
from tracefork_otel import agent
@agent
def plan(first, *, second):
    return {"said": [say(first), say(second), say("c")], "pid": os.getpid(), "parent": os.getppid()}
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose model answers in capitals."""
    with at_desk(tmp_path, monkeypatch) as made:
        yield made


@pytest.mark.slow
def test_forks_of_a_function_are_warm(desk: Desk) -> None:
    """Several forks come from one import, have their own answers, and are runs and traces of their own."""
    run = desk.called(CALLED, "plan('a', second='b')")
    assert (run.entrypoint, run.steps) == ("agent:plan", 3)
    with Forker(run, jobs=3) as forker:
        made = forker.forks([Planned(change=text(f"x{n}").bind(forker.tape, 1)) for n in range(6)])
        more = forker.fork(2, noop(), tail="offline")
    assert [one.problem for one in (*made, more)] == [None] * 7
    assert made[0].notes == ()
    results = [json.loads(str(one.result)) for one in (*made, more)]
    assert [one["said"] for one in results] == [["A", f"x{n}", "C"] for n in range(6)] + [["A", "B", "C"]]
    assert len({one["pid"] for one in results}) == 7
    assert desk.asked() == ["c"] * 6
    kept = desk.store.runs("fork")
    assert {one.run_id for one in kept} == {one.run_id for one in (*made, more)}
    assert {one.service for one in desk.store.runs("record")} == {"desk"}
    (spans,) = desk.store.rows(
        "SELECT count(*) AS n FROM spans WHERE name = 'invoke_agent plan' AND parent_span_id IN "
        "(SELECT span_id FROM spans WHERE name LIKE 'fork %')"
    )
    assert spans["n"] == 7


@pytest.mark.slow
def test_a_warm_fork_equals_a_fresh_one(desk: Desk) -> None:
    """The same fork made both ways has the same exchanges, result, output and attributes of its start."""
    run = desk.called(CALLED, "plan('a', second='b')")
    made = []
    for warm in (True, False):
        with Forker(run, warm=warm) as forker:
            made.append(forker.fork(1, text("x")))
    warm, fresh = made
    assert [one.request.body for one in warm.run.exchanges] == [
        one.request.body for one in fresh.run.exchanges
    ]
    assert json.loads(str(warm.result))["said"] == json.loads(str(fresh.result))["said"]
    assert (warm.exit_status, warm.stdout, warm.stderr) == (fresh.exit_status, fresh.stdout, fresh.stderr)
    heads = [
        desk.store.rows(
            "SELECT name, service FROM spans WHERE trace_id = $id ORDER BY name", {"id": one.run_id}
        )
        for one in made
    ]
    assert heads[0] == heads[1]


@pytest.mark.slow
def test_forks_of_a_warm_process_import_nothing_of_ours(desk: Desk) -> None:
    """What each fork needs is loaded once, before it is a copy: by an SDK that brings other clients along."""
    run = desk.called(
        """
        import aiohttp, anthropic, requests

        forked = set()
        os.register_at_fork(after_in_child=lambda: forked.update(sys.modules))

        @tracefork_otel.agent
        def plan(first):
            client = anthropic.Anthropic(api_key="k", base_url=os.environ["AGENT_URL"])
            asked = [{"role": "user", "content": first}]
            client.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=asked)
            ours = [name for name in sys.modules if name.startswith(("tracefork_otel", "opentelemetry"))]
            say("b")
            return {"new": [name for name in ours if name not in forked]}
        """,
        "plan('a')",
    )
    with Forker(run) as forker:
        made = forker.fork(1, text("x"))
        assert forker._stage.way.is_warm  # type: ignore[union-attr]
    assert (made.problem, json.loads(str(made.result))) == (None, {"new": []})


@pytest.mark.slow
def test_a_refused_agent_starts_anew_and_says_so(desk: Desk) -> None:
    """An agent whose import holds a thread is forked all the same, each time from a fresh start."""
    run = desk.called(
        CALLED
        + "import threading, time\nthreading.Thread(target=time.sleep, args=(999,), daemon=True).start()",
        "plan('a', second='b')",
    )
    made = fork(run, at=1, edit=text("x"), times=2, jobs=2)
    assert [one.problem for one in made] == [None, None]
    assert [json.loads(str(one.result))["said"][1] for one in made] == ["x", "x"]
    (note,) = {note for one in made for note in one.notes}
    assert "starts threads" in note
    assert "each fork started its agent anew" in note


@pytest.mark.slow
def test_a_call_of_the_import_does_not_reach_the_network(desk: Desk) -> None:
    """A model call of the import, which is no part of the run, is refused warm and fresh, and never sent."""
    run = desk.called(CALLED.replace("@agent", "say('at import')\n@agent"), "plan('a', second='b')")
    assert run.steps == 3
    (other,) = (one for one in desk.store.runs() if one.run_id != run.run_id)
    assert other.steps == 1
    made = fork(run, at=1, edit=text("x"), times=2)
    assert {getattr(one.problem, "kind", None) for one in made} == {"not_started"}
    assert desk.asked() == []
    assert "while it is imported" in made[0].notes[0]


@pytest.mark.slow
def test_a_warm_process_that_dies_between_forks(desk: Desk) -> None:
    """The next fork starts its agent anew and says why."""
    run = desk.called(CALLED, "plan('a', second='b')")
    with Forker(run) as forker:
        first = forker.fork(1, text("x"))
        pool = forker._stage.way._pool  # type: ignore[union-attr]
        assert pool is not None
        os.kill(pool.pid, signal.SIGKILL)
        second = forker.fork(1, text("y"))
    assert [one.problem for one in (first, second)] == [None, None]
    assert first.notes == ()
    assert "is gone" in second.notes[0]


@pytest.mark.slow
def test_an_argument_that_cannot_be_given(desk: Desk) -> None:
    """A function that no longer takes what was recorded crashes before its step, in its own words."""
    run = desk.called(CALLED, "plan('a', second='b')")
    desk.write(CALLED.replace("*, second", "*, other"))
    made = fork(run, at=0, edit=noop(), times=2)
    assert {getattr(one.problem, "kind", None) for one in made} == {"not_reached"}
    assert "unexpected keyword argument 'second'" in str(made[0].problem)
    with pytest.raises(AgentFailed):
        made[0].raise_for_problem()


@pytest.mark.slow
def test_threads_of_a_trial_are_in_its_trace(desk: Desk) -> None:
    """Calls from a thread of a warm trial are served from its own tape and recorded below its own root."""
    body = """
from tracefork_otel import agent
from concurrent.futures import ThreadPoolExecutor
@agent
def ask(word):
    with ThreadPoolExecutor(1) as pool:
        return list(pool.map(lambda part: say(part, forget=True), [word, word + "2"]))
"""
    run = desk.called(body, "ask('a')")
    with Forker(run, jobs=2) as forker:
        made = forker.forks(
            [Planned(change=noop().bind(forker.tape, at, tail="offline")) for at in (0, 0, 1, 1)]
        )
    assert [one.problem for one in made] == [None] * 4
    assert {json.dumps(one.result) for one in made} == {json.dumps('["A", "A2"]')}
    assert [one.steps for one in made] == [2] * 4


@pytest.mark.slow
def test_stop_from_another_thread(desk: Desk) -> None:
    """A forker that is told to stop ends what runs and says so."""
    run = desk.called(CALLED, "plan('a', second='b')")
    desk.write(CALLED.replace("return {", "say('a'); import time; time.sleep(300); return {"))
    with Forker(run) as forker:
        timer = threading.Timer(1.5, forker.stop)
        timer.start()
        made = forker.fork(1, noop())
        timer.join()
    assert made.problem is not None
    assert made.problem.kind == "stopped"


@pytest.mark.slow
def test_what_trials_need_is_loaded_once(start: Start, tmp_path: Path) -> None:
    """A trial that asks a model loads no module of ours: the warm process did."""
    pool = start("""
        import os, sys
        import httpx2

        imported_in, loaded = os.getpid(), []

        class Noting:
            def find_spec(self, name, path=None, target=None):
                if os.getpid() != imported_in and name.startswith("tracefork_otel"):
                    loaded.append(name)

        sys.meta_path.insert(0, Noting())

        def fn():
            try:
                httpx2.post("http://127.0.0.1:9/v1/messages", json={"model": "m", "messages": []})
            except httpx2.ConnectError as error:
                print(type(error).__name__, loaded)
    """)
    env = {"TRACEFORK_MODE": "replay", "TRACEFORK_TAPE": str(tmp_path / "tape")}
    ended = trial(pool, TRACEFORK_STORE=str(tmp_path / "store"), **env)
    # What explains a request that the tape does not have is no part of a trial's usual way.
    first, _, rest = ended.stdout.partition(" ")
    assert first == "ConnectError", ended
    told = [name for name in json.loads(rest.replace("'", '"')) if not name.startswith("tracefork_otel.play")]
    assert told == []
