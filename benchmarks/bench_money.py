"""Money: what a matrix over 20 runs costs by its estimate and in truth, and how far it passes a budget of half of that."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import tracefork_backend as tf
from report import Figure, report
from tracefork_backend.matrices.matrix import plan
from tracefork_backend.simulate import ModelServer, Reply, Usage
from tracefork_backend.store import open_store
from tracefork_backend.store.prices import usage_price
from tracefork_backend.validate.agents import ask

import tracefork_otel
from tracefork_otel import TraceforkInstrumentor
from tracefork_otel.wire.messages import Usage as Used

RUNS, STEPS, JOBS = 20, 6, 4
OTHER = "claude-opus-4-8"
AGENT = "tracefork_backend.validate.agents:ask"


class Model:
    """A model whose answers are of any length, and what they were paid with."""

    def __init__(self) -> None:
        self.paid = 0.0
        self.dearest = 0.0
        self._lock = threading.Lock()

    def __call__(self, call) -> Reply:
        asked, said = 2000 + call.rng.randrange(2000), 50 + call.rng.randrange(450)
        used = Used(input_tokens=asked, output_tokens=said)
        cost = usage_price("anthropic", [call.model], used, at=None).usd or 0.0
        with self._lock:
            self.paid += cost
            self.dearest = max(self.dearest, cost)
        return Reply(text="WON", usage=Usage(input_tokens=asked, output_tokens=said), first_delay_s=0.15)

    def since(self) -> float:
        """What was paid since this was asked last."""
        paid, self.paid = self.paid, 0.0
        return paid


def main() -> None:
    model = Model()
    with tempfile.TemporaryDirectory() as folder, ModelServer(model) as server:
        TraceforkInstrumentor().instrument(store=Path(folder) / "store", http_spans=False)
        for _ in range(RUNS):
            tracefork_otel.agent(ask)(server.url, STEPS)
        TraceforkInstrumentor().uninstrument()
        model.since()
        with open_store(Path(folder) / "store") as store:
            runs = [(run, 1) for run in store.runs()]
            edits = [tf.request(model=OTHER)]
            expected = plan(runs, edits).estimate.cost_usd
            made = tf.matrix(runs, edits, agent=AGENT, jobs=JOBS, parents=False)
            paid = model.since()
            budget = expected / 2
            held = tf.matrix(runs, edits, agent=AGENT, jobs=JOBS, parents=False, budget_usd=budget)
            spent = model.since()
    assert len(made.forks) == RUNS, made.summary()
    live = sum(fork.calls_live for fork in made.forks)
    ended = f"{len(held.forks)} of {RUNS} forks, ${spent:.4f} of ${budget:.4f}, {JOBS} at once"
    report(
        "money",
        [
            Figure(
                f"a matrix over {RUNS} runs, another model from step 1 on ({live} live calls): paid over estimated",
                paid / expected, "x", 2.0, note=f"${expected:.4f} estimated, ${paid:.4f} paid",
            ),
            Figure(
                "what the matrix said that it cost, off what was paid", abs(made.cost_usd - paid), "USD", 1e-6
            ),
            Figure(
                "the same with a budget of half of its estimate: passed by, in calls of the dearest kind for each job",
                max(0.0, spent - budget) / (JOBS * model.dearest), "calls", 1.0, note=ended,
            ),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
