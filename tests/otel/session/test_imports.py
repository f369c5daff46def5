"""Clients are met when they are imported, whoever else waits for the same import."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded import launched, read_store, run_python

ON = (
    "from tracefork_otel import TraceforkInstrumentor\nTraceforkInstrumentor().instrument(http_spans=False)\n"
)
THEIRS = "import wrapt\nwrapt.when_imported('httpx2')(lambda module: print('theirs'))\n"
FINDER = """
import sys
from importlib.machinery import PathFinder
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, path, target) if name == "unrelated" else None
sys.meta_path.insert(0, Finder)
"""
CALL = "import httpx2\nhttpx2.get({url!r})\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "before",
    [ON, THEIRS + ON, ON + THEIRS, FINDER + ON, ON + FINDER, "import httpx2\n" + ON],
    ids=["alone", "theirs first", "ours first", "finder first", "finder later", "client first"],
)
def test_a_client_is_met_beside_other_hooks(before: str, raw: str, tmp_path: Path) -> None:
    """Hooks of other tracers on the same client, and finders of others, take nothing from ours or theirs."""
    done = run_python(before + CALL.format(url=f"{raw}/empty"), store=tmp_path)
    assert read_store(tmp_path).only().response is not None
    assert ("theirs" in done.stdout) == ("wrapt" in before)


def test_a_recorded_command_meets_a_client_beside_other_hooks(raw: str, tmp_path: Path) -> None:
    """The same where recording began before the program's first line."""
    run_python(THEIRS + CALL.format(url=f"{raw}/empty"), store=tmp_path, **launched())
    assert read_store(tmp_path).only().response is not None


@pytest.mark.slow
def test_what_is_not_wanted_any_more_is_not_done(raw: str, tmp_path: Path) -> None:
    """A client that is imported after `uninstrument()` is left alone, until the next `instrument()`."""
    off = "TraceforkInstrumentor().uninstrument()\n"
    run_python(ON + off + CALL.format(url=f"{raw}/empty"), store=tmp_path / "off")
    assert not (tmp_path / "off").exists()
    again = ON + off + CALL.format(url=f"{raw}/empty") + ON + CALL.format(url=f"{raw}/status/200")
    run_python(again, store=tmp_path / "again")
    assert read_store(tmp_path / "again").only().request.url.endswith("/status/200")


@pytest.mark.slow
def test_threads_that_import_at_the_same_time(raw: str, tmp_path: Path) -> None:
    """Each of many threads that import clients and call them at once is recorded."""
    code = f"""{ON}
import threading
go = threading.Barrier(8)
def call(number):
    go.wait()
    module = __import__(("httpx2", "httpx")[number % 2])
    module.get({raw!r} + f"/status/20{{number % 2}}")
threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    run_python(code, store=tmp_path)
    assert len(read_store(tmp_path).exchanges) == 8


def test_called_from_within_an_import_it_says_so(tmp_path: Path) -> None:
    """Where a module's own import turns recording on, the log says that it comes too early for it."""
    (tmp_path / "httpx2.py").write_text(ON)
    done = run_python(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport httpx2", store=tmp_path / "s"
    )
    assert "cannot see when the import of httpx2 ends" in done.stderr


@pytest.mark.parametrize(
    ("first", "mode"),
    [
        ("sdk.trace", "record"),
        ("sdk.trace", "replay"),
        ("sdk.trace.export", "record"),
        ("sdk.metrics", "record"),
    ],
)
def test_the_sdk_may_come_first(first: str, mode: str, tmp_path: Path) -> None:
    """A provider is adopted as well where the SDK is what imports the API, and nothing is said."""
    code = f"""
import opentelemetry.{first}
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
with trace.get_tracer("agent").start_as_current_span("mine"): pass
"""
    env = launched(TRACEFORK_MODE=mode, TRACEFORK_TAPE=str(tmp_path / "missing.tape"))
    done = run_python(code, store=tmp_path, **env)
    assert "could not hook" not in done.stderr
    assert read_store(tmp_path).span("mine").ended_ns is not None
