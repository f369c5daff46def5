"""What trials of one replicate share: a later one is answered as an earlier one was to the same request."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tracefork_otel.exchange import Exchange
from tracefork_otel.play import memory
from tracefork_otel.play.match import MatchMode, identity
from tracefork_otel.play.memory import Remembered
from tracefork_otel.tape.tape import Tape
from tracefork_otel.wire.facts import facts_of

from .records import is_error, phase_of, went_live


@dataclass(slots=True)
class _Trial:
    """One trial's own answers, each with the request and how often that was made before."""

    ended: threading.Event = field(default_factory=threading.Event)
    answers: list[tuple[str, int, Remembered]] = field(default_factory=list[tuple[str, int, Remembered]])


class Memories:
    """The answers to model calls of each replicate's tails, in files that its later trials read.

    A trial sees those that were begun at least `lag` trials before it, and waits for them; `lag` is how many
    run at once. So what it sees does not hang on how long a trial takes, which would favour short ones, and
    each replicate is a table of answers drawn once. Only calls of models: any other call may act.
    """

    def __init__(self, folder: Path, *, lag: int, match: MatchMode, ignore: Sequence[str]) -> None:
        self._folder = folder
        self._lag = lag
        self._match: MatchMode = "json" if ignore else match
        self._ignore = tuple(ignore)
        self._replicates: dict[str, dict[int, _Trial]] = {}
        self._settled = 0

    def settled(self, number: int) -> None:
        """Take it that trials before that number have ended."""
        self._settled = number

    def begin(self, replicate: str, number: int, intervention: Path) -> None:
        """Write beside the trial's intervention what it may see of others; wait for those that it sees."""
        trials = self._replicates.setdefault(replicate, {})
        seen: dict[tuple[str, int], Remembered] = {}
        for other in sorted(trials):
            if other < self._settled or other <= number - self._lag:
                trials[other].ended.wait()
                for request, time, answer in trials[other].answers:
                    seen.setdefault((request, time), answer)
        trials[number] = _Trial()
        if seen:
            memory.dump([seen[key] for key in sorted(seen)], intervention)

    def add(self, replicate: str, number: int, exchanges: Iterable[Exchange]) -> None:
        """Keep what the trial was answered, for later ones of its replicate."""
        trial = self._replicates.setdefault(replicate, {}).setdefault(number, _Trial())
        times: Counter[str] = Counter()
        own: list[Exchange] = []
        path = self._folder / f"memory-{number}.tape.jsonl"
        for exchange in exchanges:
            # A model that could not answer says nothing of how the run goes: a later trial asks again.
            whole = exchange.outcome == "complete" and not is_error(exchange)
            if phase_of(exchange) not in ("tail", "memo") or not whole:
                continue
            request = identity(exchange.request, match=self._match, ignore=self._ignore)
            if went_live(exchange) and facts_of(exchange) is not None:
                trial.answers.append((request, times[request], Remembered(request, path, len(own))))
                own.append(exchange)
            times[request] += 1
        if own:
            Tape(run_id=own[0].trace_id, exchanges=tuple(own)).dump(path)

    def ended(self, replicate: str, number: int) -> None:
        """Let nobody wait for this trial any more, whatever became of it."""
        self._replicates[replicate][number].ended.set()
