"""Innocents: experiments with real forks of runs that no step lost, or only the last: how many blame another. `--runs 100`."""

from __future__ import annotations

import argparse
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import httpx2
import tracefork_backend as tf
from bench_value import Share
from report import Figure, report
from tracefork_backend.simulate import Call, ModelServer, Reply, Usage

import tracefork_otel
from tracefork_otel import TraceforkInstrumentor

STEPS = 4
RATES = (0.3, 0.5, 0.7)
"""How often a fork succeeds, whatever it keeps."""
_WORDS = ("north", "south", "east", "west", "up", "down")


class Dice:
    """A model that answers at random: a word for each question, and the last time how it ended."""

    def __init__(self) -> None:
        self.wins = 0.0
        self.rng = random.Random(0)

    def __call__(self, call: Call) -> Reply:
        """Answer with one of few words, so that answers repeat as short ones do."""
        word = self.rng.choice(_WORDS)
        if call.last.startswith("end "):
            word = "WON" if self.rng.random() < self.wins else "LOST"
        return Reply(text=word, usage=Usage(input_tokens=100, output_tokens=5))


def last_decides(url: str) -> str:
    """Ask on from each answer and return the last one: no step before it moves the outcome."""
    return _asked(url)


def nobody_decides(url: str, wins: float) -> str:
    """Ask, and end as a coin says that is tossed here: no response moves the outcome."""
    _asked(url)
    return "WON" if random.SystemRandom().random() < wins else "LOST"


def _asked(url: str) -> str:
    said = "begin"
    with httpx2.Client(verify=False) as client:
        for step in range(STEPS):
            text = f"{'end' if step == STEPS - 1 else f'question {step}'} after {said}"
            message = {"role": "user", "content": text}
            asked = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [message]}
            answered = client.post(f"{url}/v1/messages", json=asked).raise_for_status().json()
            said = str(answered["content"][0]["text"])
    return said


KINDS = {
    "nobody's, value": ("nobody_decides", "value"),
    "nobody's, intervene": ("nobody_decides", "intervene"),
    "the last step's, value": ("last_decides", "value"),
}
"""Whose fault the runs are, and the mode that asks."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment with real forks."""

    innocent: bool
    """Whether a step was certified that loses nothing."""
    found: bool
    """Whether the step was certified that does."""
    forks: int


def experiment(kind: str, number: int, *, jobs: int) -> Experiment:
    """Record runs until one fails, and blame that one."""
    name, mode = KINDS[kind]
    model = Dice()
    model.rng = random.Random(f"{kind} {number}")
    model.wins = RATES[number % len(RATES)]
    given = [model.wins] if name == "nobody_decides" else []
    with tempfile.TemporaryDirectory(prefix="tracefork-innocents-") as folder, ModelServer(model) as server:
        path = Path(folder) / "store"
        TraceforkInstrumentor().instrument(store=path, http_spans=False)
        try:
            agent = tracefork_otel.agent(globals()[name])
            while agent(server.url, *given) != "LOST":
                pass
        finally:
            TraceforkInstrumentor().uninstrument()
        with tf.open_store(path) as store:
            found = tf.blame(
                store.run("last"),
                oracle=tf.regex(success="WON", failure="LOST"),
                change=tf.text("aside") if mode == "intervene" else None,
                mode=mode,
                jobs=jobs,
                agent=f"bench_innocents:{name}",
            )
        if found.problem:
            raise RuntimeError(f"a trial is no outcome: {found.problem}")
    guilty = {STEPS - 1} if name == "last_decides" else set[int]()
    certified = set(found.findings.certified)
    return Experiment(bool(certified - guilty), guilty <= certified, len(found.trials))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=120, help="experiments, spread over the kinds")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    done: dict[str, list[Experiment]] = {kind: [] for kind in KINDS}
    for number in range(asked.runs):
        kind = list(KINDS)[number % len(KINDS)]
        done[kind].append(experiment(kind, number // len(KINDS), jobs=asked.jobs))
        print(f"{number + 1} of {asked.runs}: {kind}: {done[kind][-1]}", flush=True)
    every = [one for ones in done.values() for one in ones]
    share = Share(sum(one.innocent for one in every), len(every))
    last = done["the last step's, value"]
    report(
        "innocents",
        [
            Figure(
                "experiments that blame an innocent step",
                share.value,
                "",
                0.05,
                note=f"{share.hits} of {share.of}, {sum(one.forks for one in every)} real forks, {asked.jobs} jobs",
                within=share.within(),
            ),
            Figure(
                "the last step, where it decides alone, is certified",
                sum(one.found for one in last) / len(last),
                "",
                0.9,
                at_least=True,
                within=Share(sum(one.found for one in last), len(last)).within(),
            ),
        ],
    )


if __name__ == "__main__":
    main()
