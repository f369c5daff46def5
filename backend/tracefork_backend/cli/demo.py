"""`demo`: an agent that fails: recorded, read, queried, replayed, forked and blamed; no key, no network."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Container
from importlib import resources
from pathlib import Path

from tracefork_otel.errors import AgentFailed

from .flags.options import STORE, StoreOption
from .interrupt import INTERRUPTED

QUERY = (
    "select step, model, input_tokens, output_tokens, cost_usd from exchanges "
    "where run_id = (select run_id from runs order by started_at desc limit 1)"
)
FORK = """fork last@2 --tool-input '{"flight": "NH176", "date": "2026-11-03"}' --success-re BOOKED"""
BLAME = "blame last --success-re BOOKED --budget 2.00"
# Half of the sampled agent's runs succeed.
_RUNS_TO_FAIL = 20


def demo(store: StoreOption = STORE) -> None:
    """Record a booking agent against a scripted model server, then read, query, replay, fork and blame it."""
    agent = shlex.quote(str(_example("booking_agent.py")))
    python = shlex.quote(sys.executable)
    started = time.monotonic()
    for says, command, expected in (
        (
            "An agent books a flight. Nothing in its code knows of us:",
            f"run -- {python} {agent} --city Tokyo",
            {0},
        ),
        (
            "The same agent, another city. This one goes wrong:",
            f"run -- {python} {agent} --city Osaka",
            {0, 1},
        ),
        ("Both runs are in the store:", "ls", {0}),
        ("The steps of the one that failed:", "show last", {0}),
        ("One exchange of it, as it went over the wire (start):", "show last@0 | head -n 24", {0}),
        ("Everything is SQL:", f"sql {shlex.quote(QUERY)}", {0}),
        ("Run it again. No server is there any more; every byte comes from the tape:", "replay last", {0}),
        ("Step 2 asked for the wrong day. Change that, and let the agent go on:", FORK, {0}),
        ("What became of it:", "diff last", {0}),
    ):
        _show(says, command, store, expected)
    _fail(f"run -- {python} {agent} --city Osaka --sampled", store)
    _show("Which step lost it? Each is drawn again beside a control (a minute):", BLAME, store, {0})
    took = time.monotonic() - started
    print(f"\nDone in {took:.0f} s; the runs are in {store}. Next: tracefork-otel show last@3")


def _show(says: str, command: str, store: Path, expected: Container[int]) -> None:
    print(f"\n# {says}\n$ tracefork-otel {command}", flush=True)
    status = _tracefork(command, store)
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    if status not in expected:
        raise AgentFailed(f"the demo's command `tracefork-otel {command}` ended with status {status}")


def _fail(command: str, store: Path) -> None:
    """Run the sampled agent until one of its runs fails, which is the newest then."""
    from ..grading.graded import graded_run
    from ..store import open_store

    says = "Models are sampled. With one that errs in half of its runs, until one fails:"
    for _ in range(_RUNS_TO_FAIL):
        _show(says, command, store, {0})
        with open_store(store) as opened:
            if "ERROR" in graded_run(opened.run("last")).text:
                return
        says = "This one went well; once more:"
    raise AgentFailed(f"the demo's agent did not fail in {_RUNS_TO_FAIL} runs: start it again")


def _tracefork(command: str, store: Path) -> int:
    """Return the exit status of one of our commands, typed as a person types it, its output on our own."""
    from ..agents.foreground import run_inherited

    verb, _, rest = command.partition(" ")
    ours = shlex.join([sys.executable, "-m", "tracefork_backend.cli", verb, "--store", str(store)])
    # In the shell's place, so that a signal that is given on is the command's.
    return run_inherited(["/bin/sh", "-c", f"exec {ours} {rest}"], os.environ)


def _example(name: str) -> Path:
    """Return the path of an example agent: beside the package where it is installed, else in the checkout."""
    packaged = Path(str(resources.files("tracefork_backend"))) / "examples" / name
    if packaged.is_file():
        return packaged
    return Path(str(resources.files("tracefork_backend"))).parents[1] / "examples" / name
