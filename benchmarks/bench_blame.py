"""Blame: seconds of an experiment from its first trial to its results, the work behind them, and calls that memory saves."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import tracefork_backend as tf
from report import Figure, report
from tracefork_backend.simulate import ModelServer, Reply
from tracefork_backend.store import open_store
from tracefork_backend.validate import real
from tracefork_backend.validate.agents import Careless, ask, look_up

import tracefork_otel
from tracefork_otel import TraceforkInstrumentor

STEPS = 6


def model(call) -> Reply:
    if not call.last.startswith("sum "):
        return Reply(text="good")
    return Reply(text="LOST" if call.last.split()[3] == "bad" else "WON")


def memory() -> Figure:
    """Calls that would have gone live, for each that did, in an experiment that certifies one step."""
    with tempfile.TemporaryDirectory() as folder, ModelServer(model) as server:
        TraceforkInstrumentor().instrument(store=Path(folder) / "store", http_spans=False)
        tracefork_otel.agent(ask)(server.url, STEPS)
        TraceforkInstrumentor().uninstrument()
        with open_store(Path(folder) / "store") as store:
            oracle = tf.regex(success="WON", failure="LOST")
            found = tf.blame(
                store.run("last"), oracle=oracle, change=tf.text("bad"), mode="intervene", agent=ask
            )
        assert found.findings.certified == (2,), found.findings.message
        live = sum(one.calls_live for one in found.trials)
        saved = sum(one.calls_memo for one in found.trials)
    return Figure(
        f"live calls without memory to those with it, {STEPS} independent calls", (live + saved) / live, "x", 1.3, at_least=True, note=f"{live} live, {saved} from memory, {len(found.trials)} forks"
    )  # fmt: skip


def bare() -> float:
    """Seconds that the live calls of that experiment take, 16 agents at once as forks that nobody records."""
    model = Careless()
    model.steps, model.latency_s = 10, 0.02
    with ModelServer(model) as server:
        look_up(server.url, 10)
        return min(_forked(server.url, [9 - at for at in range(9) for _ in range(4)]) for _ in range(5))


def _forked(url: str, calls: list[int]) -> float:
    began, at_work = time.perf_counter(), 0
    while calls or at_work:
        while calls and at_work < 16:
            asked = calls.pop(0)
            if not os.fork():
                try:
                    look_up(url, asked)
                finally:
                    os._exit(0)
            at_work += 1
        os.wait()
        at_work -= 1
    return time.perf_counter() - began


def main() -> None:
    floor = bare()
    (row,) = real.wall(quick=False, on_step=lambda done, of: None)
    load = os.getloadavg()[0]
    report(
        "blame",
        [
            Figure(
                f"an experiment, {row.cell}",
                row.metrics["seconds"],
                "s",
                0.4,
                note=f"its live calls by bare forks: {floor:.2f} s; load {load:.1f}",
            ),
            Figure(
                f"work behind it, {row.runs} trials, its start included", row.metrics["cpu_seconds"], "s", 3.0
            ),
            memory(),
        ],
    )


if __name__ == "__main__":
    main()
