"""Recording starts without a line of code, and every end of a process leaves a readable run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recorded import BOOT, REPOSITORY, launched, read_store, run_python

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def _start(code: str, store: Path, **env: str) -> subprocess.Popen[str]:
    """A process that runs the code; its first line of output says that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TRACEFORK_STORE": str(store), "TRACEFORK_SEAL": "0", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_no_line_start(tmp_path: Path, raw: str) -> None:
    """With the boot folder on PYTHONPATH, script and child are one run; the user's own sitecustomize runs."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("import builtins; builtins.OWN = __name__ + __file__\n")
    script = tmp_path / "agent.py"
    script.write_text(
        "import subprocess, sys\n"
        "assert OWN.startswith('sitecustomize') and 'own' in OWN\n"
        "import httpx2, sitecustomize\n"
        "assert sitecustomize.__file__.startswith(OWN[len('sitecustomize'):])\n"
        f"httpx2.get('{raw}/empty')\n"
        f"subprocess.run([sys.executable, '-c', \"import httpx; httpx.get('{raw}/204')\"], check=True)\n"
    )
    store = tmp_path / "store"
    path = os.pathsep.join((str(BOOT), str(own)))
    run_python([str(script)], store=store, **launched(PYTHONPATH=path, TRACEPARENT=PARENT))
    recorded = read_store(store)
    assert [exchange.trace_id for exchange in recorded.exchanges] == [TRACE, TRACE]
    assert {process.via for process in recorded.processes} == {"sitecustomize"}
    assert {process.launch_id for process in recorded.processes} == {TRACE}
    root = recorded.span("agent.py")
    assert root.parent_span_id == "b7ad6b7169203331"
    assert root.ended_ns is not None
    assert json.loads(str(root.attributes["tracefork.command"]))[1:] == [str(script)]
    assert oct(store.stat().st_mode)[-3:] == "700"


def test_tracers_whose_starters_look_for_the_next_sitecustomize_are_started_once(tmp_path: Path) -> None:
    """Whoever puts a folder before ours, and runs the next one in its file: each is run once, ours first."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("print('own')\n")
    starter = tmp_path / "starter"
    starter.mkdir()
    (starter / "sitecustomize.py").write_text(
        "import importlib.machinery, importlib.util, os, sys\n"
        "print('starter', 'tracefork_otel.launch' in sys.modules)\n"
        "path = [place for place in sys.path if place != os.path.dirname(__file__)]\n"
        "spec = importlib.machinery.PathFinder.find_spec('sitecustomize', path)\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
    )
    code = (
        "import os, sys\n"
        f"os.environ['PYTHONPATH'] = {str(starter)!r} + os.pathsep + os.environ['PYTHONPATH']\n"
        "os.execl(sys.executable, sys.executable, '-c', 'print(1)')\n"
    )
    path = os.pathsep.join((str(BOOT), str(own)))
    done = run_python(code, store=tmp_path / "store", **launched(PYTHONPATH=path, TRACEPARENT=PARENT))
    assert done.stdout.split("\n") == ["own", "starter True", "own", "1", ""]


def test_boot_imports_neither_otel_nor_a_client(tmp_path: Path) -> None:
    """A process that makes no call says that it was reached, and imports no OTel and no client for that."""
    heavy = "('opentelemetry', 'httpx', 'httpx2')"
    code = f"import sys; print([m for m in sys.modules if m.partition('.')[0] in {heavy}])"
    done = run_python(code, store=tmp_path, **launched())
    assert done.stdout.strip() == "[]"
    recorded = read_store(tmp_path)
    assert len(recorded.processes) == 1
    assert not recorded.exchanges


def test_interpreter_without_the_package_says_so(tmp_path: Path, raw: str) -> None:
    """An interpreter that lacks the package runs as ever, and leaves a file that names it."""
    base = getattr(sys, "_base_executable", sys.executable)
    probe = subprocess.run(
        [base, "-c", "import tracefork_otel"], capture_output=True, check=False, cwd=tmp_path
    )
    if probe.returncode == 0:
        pytest.skip("the base interpreter has the package too")
    store = tmp_path / "store"
    done = subprocess.run(
        [base, "-c", "print('ran')"],
        env={**os.environ, **launched(), "TRACEFORK_STORE": str(store), "TRACEPARENT": PARENT},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout == "ran\n"
    assert done.stderr == ""
    (file,) = (store / "wal").glob("*.absent.json")
    said = json.loads(file.read_text())
    assert said["executable"]
    assert said["launch_id"] == TRACE
    assert said["process_id"] == file.name.removesuffix(".absent.json")


def test_wrong_setting_is_said_and_nothing_else_happens(tmp_path: Path) -> None:
    """A setting that does not parse costs the record, not the program."""
    done = run_python("print('ran')", store=tmp_path, **launched(TRACEFORK_SEAL="maybe"))
    assert done.stdout == "ran\n"
    assert "TRACEFORK_SEAL='maybe'" in done.stderr


def test_off_is_off(tmp_path: Path, raw: str) -> None:
    """TRACEFORK_MODE=off records nothing, with or without the line."""
    code = f"""
from tracefork_otel import TraceforkInstrumentor
TraceforkInstrumentor().instrument()
import httpx2
httpx2.get("{raw}/empty")
"""
    run_python(code, store=tmp_path / "store", **launched(TRACEFORK_MODE="off"))
    assert not (tmp_path / "store").exists()


PROVIDER = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
provider = TracerProvider()
console = ConsoleSpanExporter(formatter=lambda span: "exported " + span.name + chr(10))
provider.add_span_processor(BatchSpanProcessor(console))
trace.set_tracer_provider(provider)
"""
INSTRUMENT = """
from tracefork_otel import TraceforkInstrumentor
TraceforkInstrumentor().instrument(http_spans=False)
"""


@pytest.mark.parametrize("inside", ["sleep", "read"])
def test_sigterm_ends_the_run_and_keeps_the_status(inside: str, tmp_path: Path, raw: str) -> None:
    """SIGTERM ends the root, flushes the user's own exporter, and the process still dies of the signal."""
    waiting = "import time; time.sleep(60)" if inside == "sleep" else f"httpx2.get('{raw}/slow?ms=8000')"
    first = f"import httpx2\nhttpx2.get('{raw}/empty')\nprint('ready', flush=True)"
    code = f"{PROVIDER}{INSTRUMENT}\n{first}\n{waiting}"
    process = _start(code, tmp_path)
    asked, given_up = 1 if inside == "sleep" else 2, time.monotonic() + 20
    while len(read_store(tmp_path).exchanges) < asked and time.monotonic() < given_up:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM
    recorded = read_store(tmp_path)
    root = recorded.span("python -c")
    assert root.attributes["tracefork.end"] == "SIGTERM"
    assert "exported python -c" in out
    outcomes = [exchange.outcome for exchange in recorded.in_order()]
    assert outcomes == (["complete"] if inside == "sleep" else ["complete", "in_flight"])


def test_a_handler_of_the_user_stays(tmp_path: Path, raw: str) -> None:
    """A SIGTERM handler that was there first is not replaced."""
    code = f"""
import signal, sys
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
{INSTRUMENT}
import httpx2, time
httpx2.get("{raw}/empty")
print("ready", flush=True)
time.sleep(60)
"""
    process = _start(code, tmp_path)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 7
    assert read_store(tmp_path).span("python -c").attributes["tracefork.end"] == "atexit"


def test_kill_leaves_what_was_begun(tmp_path: Path, raw: str) -> None:
    """After kill -9 the finished exchange is whole, the open one `in_flight` with its request."""
    code = f"""
{INSTRUMENT}
import httpx2
httpx2.get("{raw}/status/200")
with httpx2.stream("POST", "{raw}/sse?events=900&delay_ms=20", content=b"asked") as response:
    for _ in response.iter_raw():
        print("ready", flush=True)
"""
    process = _start(code, tmp_path)
    process.kill()
    process.communicate(timeout=20)
    recorded = read_store(tmp_path)
    first, second = recorded.in_order()
    assert first.outcome == "complete"
    assert (second.outcome, second.request.body, second.response) == ("in_flight", b"asked", None)
    assert recorded.span("python -c").ended_ns is None


def test_uncaught_error_is_on_the_root(tmp_path: Path) -> None:
    """An exception that ends the program makes its root an error that says which."""
    code = f"{INSTRUMENT}\nimport httpx2\nhttpx2.get('http://127.0.0.1:9/')"
    done = run_python(code, store=tmp_path, check=False)
    root = read_store(tmp_path).span("python -c")
    assert done.returncode == 1
    assert root.status == "ERROR"
    assert root.status_message is not None
    assert "ConnectError" in root.status_message


@pytest.mark.slow
def test_forked_children_have_their_own_wal(tmp_path: Path, raw: str) -> None:
    """Children of os.fork and multiprocessing have WALs of their own, in the parent's run, nothing twice."""
    code = f"""
{INSTRUMENT}
import multiprocessing, os, sys
import httpx2
def call(name):
    httpx2.post("{raw}/echo", content=name)
call(b"parent")
with httpx2.stream("GET", "{raw}/sse?events=3") as response:
    child = os.fork()
    if child == 0:
        call(b"forked")
        response.close()
        os._exit(0)
    os.waitpid(child, 0)
    response.read()
context = multiprocessing.get_context("fork")
workers = [context.Process(target=call, args=(b"worker",)) for _ in range(2)]
for worker in workers: worker.start()
for worker in workers: worker.join()
"""
    run_python(code, store=tmp_path)
    recorded = read_store(tmp_path)
    bodies = sorted(exchange.request.body for exchange in recorded.exchanges)
    assert bodies == [b"", b"forked", b"parent", b"worker", b"worker"]
    assert {exchange.outcome for exchange in recorded.exchanges} == {"complete"}
    assert len({exchange.trace_id for exchange in recorded.exchanges}) == 1
    assert len({exchange.process_id for exchange in recorded.exchanges}) == 4
    assert len(recorded.processes) == 4
    assert recorded.span("python -c").ended_ns is not None
    assert not recorded.notes


def test_replays_are_children_of_their_span_everywhere(tmp_path: Path) -> None:
    """In a replay, threads that attached nothing are in its trace; a root that escapes it is linked."""
    tape = tmp_path / "missing.tape"
    code = f"""
{PROVIDER}
import threading
from concurrent.futures import ThreadPoolExecutor
from opentelemetry.context import Context
tracer = trace.get_tracer("agent")
def work(name):
    with tracer.start_as_current_span(name): pass
work("main")
thread = threading.Thread(target=work, args=("thread",)); thread.start(); thread.join()
ThreadPoolExecutor().submit(work, "pool").result()
tracer.start_span("escaped", context=Context()).end()
"""
    env = launched(TRACEFORK_MODE="replay", TRACEFORK_TAPE=str(tape), TRACEPARENT=PARENT)
    run_python(code, store=tmp_path / "store", **env)
    recorded = read_store(tmp_path / "store")
    for name in ("main", "thread", "pool"):
        assert recorded.span(name).trace_id == TRACE
        assert recorded.span(name).parent_span_id == "b7ad6b7169203331"
    escaped = recorded.span("escaped")
    assert escaped.trace_id != TRACE
    assert escaped.links[0]["trace_id"] == TRACE


@pytest.mark.parametrize("mode", ["record", "replay"])
def test_uninstrument_takes_back_only_what_the_agent_added(mode: str, tmp_path: Path) -> None:
    """What a command of ours changed stays, also of later imports: a replay sends no spans."""
    code = f"""
{PROVIDER}
import multiprocessing.util, subprocess
from opentelemetry.sdk.trace import Tracer
def changes():
    owners = (trace, Tracer, subprocess.Popen, multiprocessing.util)
    return [vars(owner).get(name) for owner, name in zip(
        owners, ("set_tracer_provider", "sampler", "__init__", "spawnv_passfds"))]
before = changes()
{INSTRUMENT}
TraceforkInstrumentor().uninstrument()
assert changes() == before
with trace.get_tracer("agent").start_as_current_span("mine"): pass
provider.force_flush()
"""
    env = launched(TRACEFORK_MODE=mode, TRACEFORK_TAPE=str(tmp_path / "missing.tape"), TRACEPARENT=PARENT)
    done = run_python(code, store=tmp_path / "store", **env)
    assert ("exported mine" in done.stdout) == (mode == "record")


@pytest.mark.slow
def test_under_opentelemetry_instrument(tmp_path: Path, raw: str) -> None:
    """Under `opentelemetry-instrument` entry points turn us on; a span that comes twice is stored once."""
    script = tmp_path / "agent.py"
    script.write_text(
        "from opentelemetry import trace\n"
        "import httpx2\n"
        "with trace.get_tracer('agent').start_as_current_span('mine'):\n"
        f"    httpx2.get('{raw}/empty')\n"
    )
    tool = Path(sys.executable).with_name("opentelemetry-instrument")
    if not tool.exists():
        pytest.skip("opentelemetry-instrument is not installed")
    store = tmp_path / "store"
    env = {"OTEL_TRACES_EXPORTER": "tracefork", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    run_python([str(tool), sys.executable, str(script)], store=store, **env)
    recorded = read_store(store)
    mine = recorded.span("mine")
    assert recorded.processes[0].via == "entry_point"
    assert recorded.only().parent_span_id == mine.span_id
    assert len({span.span_id for span in recorded.spans}) == len(recorded.spans)
    assert any(span.scope == "opentelemetry.instrumentation.httpx" for span in recorded.spans)


def test_importing_the_package_is_cheap() -> None:
    """Importing the package imports nothing of OTel; the names appear when they are asked for."""
    code = (
        "import sys, tracefork_otel as t;"
        "assert not [m for m in sys.modules if m.startswith('opentelemetry')];"
        "assert len(t.__all__) <= 25; [getattr(t, n) for n in t.__all__]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, timeout=60)
