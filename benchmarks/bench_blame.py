"""Blame: seconds of an experiment from its first trial to its results, the work behind them, and calls that memory saves."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import tracefork_backend as tf
from report import Figure, report
from tracefork_backend.simulate import ModelServer, Reply
from tracefork_backend.store import open_store
from tracefork_backend.validate import real
from tracefork_backend.validate.agents import ask

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


def main() -> None:
    (row,) = real.wall(quick=False, on_step=lambda done, of: None)
    load = os.getloadavg()[0]
    report(
        "blame",
        [
            Figure(f"an experiment, {row.cell}", row.metrics["seconds"], "s", 1.0, note=f"load {load:.1f}"),
            Figure(
                f"work behind it, {row.runs} trials, its start included", row.metrics["cpu_seconds"], "s", 3.0
            ),
            memory(),
        ],
    )


if __name__ == "__main__":
    main()
