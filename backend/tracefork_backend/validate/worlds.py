"""Agents reduced to chances: worlds whose causes are planted, so that an answer can be checked.

They say nothing about real agents; they say whether the search finds what is there and blames nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..blaming.trials import TrialRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisyOr:
    """Each altered step flips the run with its own chance, sets if altered whole, and noise always may."""

    steps: int
    noise: tuple[float, ...]
    """Chance that a re-run flips by itself, by how many responses are kept."""
    own: tuple[float, ...]
    joint: tuple[tuple[tuple[int, ...], float], ...] = ()
    masks: tuple[tuple[int, int], ...] = ()
    """(masker, masked): altering the first takes the second's effect away, against what groups assume."""
    causes: tuple[int, ...] = ()
    echoes: tuple[int, ...] = ()
    error: float = 0.0
    """Chance that the outcome is graded wrong, in all arms alike."""
    loss: float = 0.0
    """Chance that a fork that re-runs everything is lost ungraded; in proportion less for shorter tails."""
    loss_of_others: float = 0.0
    """Further chance where an altered fork would not have flipped: loss that looks like an effect."""

    def flips(self, request: TrialRequest, rng: random.Random) -> bool | None:
        """Return the outcome of one fork as the oracle sees it, None if the fork was lost."""
        if self.loss and rng.random() < self.loss * (self.steps - request.kept) / self.steps:
            return None
        flipped = self._flips(request, rng)
        if self.loss and request.altered and not flipped and rng.random() < self.loss_of_others:
            return None
        return flipped != (rng.random() < self.error) if self.error else flipped

    def _flips(self, request: TrialRequest, rng: random.Random) -> bool:
        altered = request.altered
        # The response at the start of an intervention is put in place, not asked for, so both arms re-run
        # the same.
        if rng.random() < self.noise[request.kept + (request.kept in altered)]:
            return True
        for step in altered:
            chance = self.own[step]
            if chance and rng.random() < chance and not self._masked(step, altered):
                return True
        for members, chance in self.joint:
            if all(step in altered for step in members) and rng.random() < chance:
                return True
        return False

    def _masked(self, step: int, altered: Sequence[int]) -> bool:
        return any(masked == step and masker in altered for masker, masked in self.masks)

    def effect(self, step: int) -> float:
        """Return the true effect of one step over its control."""
        return (1 - self.noise[step + 1]) * self.own[step]

    @property
    def innocent(self) -> frozenset[int]:
        """The steps that have no effect, alone or in a set."""
        joint = {step for members, _ in self.joint for step in members}
        return frozenset(step for step in range(self.steps) if not self.own[step] and step not in joint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pivot:
    """A stochastic agent: some steps are decisions that may go wrong, one of them did in the recorded run."""

    steps: int
    curve: tuple[float, ...]
    """Chance that a re-run flips, by how many responses are kept."""
    causes: tuple[int, ...]
    echoes: tuple[int, ...] = ()

    def flips(self, request: TrialRequest, rng: random.Random) -> bool:
        """Return the outcome of one fork."""
        return rng.random() < self.curve[request.kept]

    def effect(self, step: int) -> float:
        """Return by how much the chance falls once this step's recorded response is kept."""
        return self.curve[step] - self.curve[step + 1]

    @property
    def innocent(self) -> frozenset[int]:
        """The steps at which the chance does not fall."""
        return frozenset(step for step in range(self.steps) if self.effect(step) <= 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Runs of one agent, whose chance of failure changes where a part of their requests is taken out."""

    parts: int
    rates: tuple[float, ...]
    """How often each run fails with all parts: trials are spread over the runs in turn."""
    effects: Mapping[int, float]
    """By part the share of successes that are lost without it; below 0, of failures that are saved."""
    echoes: tuple[int, ...] = ()

    def flips(self, request: TrialRequest, rng: random.Random) -> bool:
        """Return whether one fork fails."""
        rate = self.rates[request.replicate % len(self.rates)]
        for part in request.altered:
            rate = _without(rate, self.effects.get(part, 0.0))
        return rng.random() < rate

    def effect(self, part: int) -> float:
        """Return the true effect of one part, over all runs."""
        own = self.effects.get(part, 0.0)
        return sum(_without(rate, own) - rate for rate in self.rates) / len(self.rates)

    @property
    def causes(self) -> tuple[int, ...]:
        """The parts that make a difference."""
        return tuple(self.effects)

    @property
    def innocent(self) -> frozenset[int]:
        """The parts that make none."""
        return frozenset(range(self.parts)) - self.effects.keys()


def _without(rate: float, effect: float) -> float:
    return rate + effect * (1 - rate) if effect > 0 else rate * (1 + effect)


def noise_of(steps: int, rate: float) -> tuple[float, ...]:
    """Return noise that is the same for every tail, and none where nothing is re-run."""
    return (*[rate] * steps, 0.0)


def planted(
    rng: random.Random,
    steps: int,
    *,
    causes: int,
    noise: float,
    echoes: int = 2,
    at: int | None = None,
    strength: tuple[float, float] = (0.5, 1.0),
) -> NoisyOr:
    """Return a world with causes that flip with a chance in `strength`, each followed by weaker echoes.

    Echoes are up to three steps later and flip with a chance of 0.2 to 0.4. The last step is the output, so
    neither is there.
    """
    places = range(steps - 1)
    chosen = [at] if at is not None else sorted(rng.sample(places, min(causes, len(places))))
    rates = {step: max(noise, rng.uniform(*strength)) for step in chosen}
    followers = [j for step in chosen for j in range(step + 1, min(steps - 1, step + 4)) if j not in rates]
    follower_rates = {j: max(noise, rng.uniform(0.2, 0.4)) for j in followers[: echoes * len(chosen)]}
    own = [0.0] * steps
    for step, rate in {**rates, **follower_rates}.items():
        own[step] = 1 - (1 - rate) / (1 - noise)
    return NoisyOr(
        steps=steps,
        noise=noise_of(steps, noise),
        own=tuple(own),
        causes=tuple(chosen),
        echoes=tuple(sorted(follower_rates)),
    )


def conjunction(rng: random.Random, steps: int, *, members: int, noise: float) -> NoisyOr:
    """Return a world in which so many steps flip the run, with a chance of 0.7 to 1, if all are altered."""
    chosen = tuple(sorted(rng.sample(range(steps - 1), members)))
    return NoisyOr(
        steps=steps,
        noise=noise_of(steps, noise),
        own=(0.0,) * steps,
        joint=((chosen, rng.uniform(0.7, 1.0)),),
        causes=chosen,
    )


def pivot(rng: random.Random, steps: int, *, noise: float, pivots: int = 3) -> Pivot:
    """Return a failed stochastic run with some decisive steps, one of which went wrong in the recording."""
    places = sorted(rng.sample(range(steps - 1), min(pivots, steps - 1)))
    risks = [rng.uniform(0.2, 0.6) for _ in places]
    wrong = rng.randrange(len(places))
    curve: list[float] = []
    for kept in range(steps):
        success = 1.0
        for index, (place, risk) in enumerate(zip(places, risks, strict=True)):
            if place < kept:
                success *= 0.0 if index == wrong else 1.0
            else:
                success *= 1 - risk
        curve.append(success * (1 - noise) + (1 - success) * noise)
    return Pivot(steps=steps, curve=(*curve, 0.0), causes=(places[wrong],))
