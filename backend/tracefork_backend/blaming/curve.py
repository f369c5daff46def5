"""What the outcomes at some prefixes say of the curve V: where it falls, how far, and what a proof takes.

V(k) is the chance that the run comes out otherwise if its first responses are kept up to k. From prefix to
prefix it stays, or is drawn anew from a prior: a hidden Markov model over a few levels, with two rates of
change that are mixed by their evidence. All of this steers spending and words only: no verdict rests on it.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_LEVELS = (0.004, 0.025, 0.06, 0.11, 0.17, 0.24, 0.32, 0.41, 0.5, 0.6, 0.7, 0.8, 0.9, 0.975)
_LOGS = tuple((math.log(level), math.log1p(-level)) for level in _LEVELS)
# Curves that were measured on real models end at 0, and a drop mostly goes there.
_LOWEST = 0.3
_PRIOR = (_LOWEST, *[(1 - _LOWEST) / (len(_LEVELS) - 1)] * (len(_LEVELS) - 1))

# Changes of V over a whole run: the textbook's one drop, and real curves with as many as six.
_CHANGES = (0.5, 2.0)
_MOST_CHANGE = 0.5

# A drop that is worth a certificate, and one that is worth going on for after the first.
WORTH = 0.1
_LARGE = 0.2
LOSS = 0.25
"""What `Curve.loss` calls a loss."""
# What halving a wide gap costs: four forks, and twice as many for halves gone into in vain.
_HALVING = 12


def drawn(steps: int, rng: random.Random) -> tuple[float, ...]:
    """Return a curve as the prior has them, of a failed run some step of which loses `WORTH` or more.

    It ends at 0, where all that was recorded is kept. How often a run fails by itself makes it likelier to be
    looked at.
    """
    while True:
        change = min(_MOST_CHANGE, rng.choice(_CHANGES) / steps)
        curve = rng.choices(_LEVELS, _PRIOR)
        while len(curve) < steps:
            curve.append(rng.choices(_LEVELS, _PRIOR)[0] if rng.random() < change else curve[-1])
        curve.append(0.0)
        falls = max(high - low for high, low in itertools.pairwise(curve))
        if falls >= WORTH and rng.random() >= curve[0]:
            return tuple(curve)


# Failed runs of a small real model, measured by brute force: a fifth or a quarter of re-runs succeed, from
# step to step about as many, until a late one loses all.
_MEASURED = (0.15, 0.35)
_UNEVEN = (0.6, 1.4)
_LIKE_MEASURED = 2 / 3


def likely(steps: int, rng: random.Random) -> tuple[float, ...]:
    """Return a curve to foretell an experiment by: two of three as runs of a small real model have them.

    The third is as the prior has them, which fall further and so are told sooner.
    """
    if rng.random() >= _LIKE_MEASURED:
        return drawn(steps, rng)
    high, lost = rng.uniform(*_MEASURED), rng.randint((steps + 1) // 2, steps)
    return (*(high * rng.uniform(*_UNEVEN) if kept < lost else 0.0 for kept in range(steps)), 0.0)


def _gain(high: float, low: float) -> float:
    """Return the log capital that one pair of trials at these rates adds to the best bet, in the mean."""
    middle = (high + low) / 2

    def divergence(rate: float) -> float:
        return rate * math.log(rate / middle) + (1 - rate) * math.log((1 - rate) / (1 - middle))

    return divergence(high) + divergence(low)


_DROPS = tuple(
    (x, y, high - low, _gain(high, low))
    for x, high in enumerate(_LEVELS)
    for y, low in enumerate(_LEVELS)
    if high - low >= WORTH
)
_ALL = range(len(_LEVELS))


@dataclass(frozen=True, slots=True)
class Knot:
    """A measured prefix: its place in the run, -1 for nothing kept, and its outcomes that were graded."""

    place: int
    flips: int
    others: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a certificate from a gap takes, and what of it is there."""

    threshold: float
    """The log e-value that certifies."""
    log_e: float
    """That of the test of a gap of one step so far."""
    blocks: int
    """The pairs that this test has read."""
    drawn: tuple[int, int]
    """The trials at both ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Two neighbouring knots, with the chance of each pair of levels: the sum of `left[x] * right[y]`."""

    first: Knot
    last: Knot
    parts: tuple[tuple[Sequence[float], Sequence[float]], ...]

    @property
    def width(self) -> int:
        """How many steps lie between the two."""
        return self.last.place - self.first.place

    @property
    def fall(self) -> float:
        """How far V is expected to fall here."""
        total = 0.0
        for left, right in self.parts:
            above = sum(map(_times, left, _LEVELS)) * sum(right)
            total += above - sum(left) * sum(map(_times, right, _LEVELS))
        return total

    @property
    def large(self) -> float:
        """How likely V falls here by something large."""
        pairs = zip(self._masses(), _DROPS, strict=True)
        return sum(mass for mass, (_, _, drop, _) in pairs if drop >= _LARGE)

    def _masses(self) -> list[float]:
        """Return the chance of each pair of levels of `_DROPS`."""
        masses = [0.0] * len(_DROPS)
        for left, right in self.parts:
            masses = [mass + left[x] * right[y] for mass, (x, y, _, _) in zip(masses, _DROPS, strict=True)]
        return masses

    def promise(self, proof: Proof) -> tuple[float, float]:
        """Return certificates to expect from one fork here, and the same weighed by how much each explains.

        The mean is that of the inverse of the forks which a certificate takes: a gap that may soon be settled
        is favoured, and falls back as that fails to happen.
        """
        plain = weighed = 0.0
        for mass, drop, forks in self._prices(proof):
            share = mass / forks
            plain += share
            weighed += share * drop
        return plain, weighed

    def losses(self, proof: Proof) -> list[tuple[float, float]]:
        """Return how likely V falls by each loss here, and the forks that a certificate of it takes."""
        return [(mass, forks) for mass, drop, forks in self._prices(proof) if drop >= LOSS]

    def _prices(self, proof: Proof) -> Iterator[tuple[float, float, float]]:
        """Yield the chance of each pair of levels, its drop, and the forks that a certificate takes then."""
        wide = self.width > 1
        halvings = _HALVING * math.log2(self.width)
        missing = max(proof.threshold - proof.log_e, 1.0)
        few, many = sorted(proof.drawn)
        for mass, (_, _, drop, gain) in zip(self._masses(), _DROPS, strict=True):
            if wide:
                forks = 2 * proof.threshold / gain + halvings
            else:
                pairs = proof.blocks + missing / gain
                forks = pairs - few + (pairs - many if pairs > many else 0.0)
                if forks < 1.0:
                    forks = 1.0
            yield mass, drop, forks


@dataclass(frozen=True, slots=True)
class _Pass:
    """The model with one rate of change: the gaps' rows, the log evidence, the chance of no loss."""

    gaps: list[tuple[Sequence[float], Sequence[float]]]
    evidence: float
    spared: float


def _times(a: float, b: float) -> float:
    return a * b


def _passed(knots: Sequence[Knot], change: float) -> _Pass:
    """Return the posterior of all gaps, forward and backward once, linear in the knots."""
    likely: list[list[float]] = []
    evidence = 0.0
    for knot in knots:
        logs = [knot.flips * yes + knot.others * no for yes, no in _LOGS]
        most = max(logs)
        evidence += most
        likely.append([math.exp(value - most) for value in logs])
    stays = [(1 - change) ** (after.place - before.place) for before, after in itertools.pairwise(knots)]

    forward: list[list[float]] = [list(map(_times, _PRIOR, likely[0]))]
    spared = forward[0]
    for stay, here in zip(stays, likely[1:], strict=True):
        total = sum(forward[-1])
        evidence += math.log(total)
        row = [value / total for value in forward[-1]]
        forward[-1] = row
        forward.append([(stay * row[y] + (1 - stay) * _PRIOR[y]) * here[y] for y in _ALL])
        # Paths on which V has nowhere fallen by a loss.
        spared = [value / total for value in spared]
        spared = [
            (stay * spared[y] + (1 - stay) * _PRIOR[y] * sum(spared[: _REACH[y]])) * here[y] for y in _ALL
        ]
    total = sum(forward[-1])

    gaps: list[tuple[Sequence[float], Sequence[float]]] = []
    back = [1.0] * len(_LEVELS)
    for index in range(len(stays) - 1, -1, -1):
        stay, row = stays[index], forward[index]
        right = list(map(_times, likely[index + 1], back))
        anew = sum(map(_times, _PRIOR, right))
        scale = (1 - stay) * sum(row) * anew + stay * sum(map(_times, row, right))
        share = (1 - stay) / scale
        gaps.append(([share * value for value in row], list(map(_times, _PRIOR, right))))
        back = [stay * value + (1 - stay) * anew for value in right]
        most = max(back)
        back = [value / most for value in back]
    gaps.reverse()
    return _Pass(gaps, evidence + math.log(total), sum(spared) / total)


# How many levels from below are under a level plus a loss: from those V does not fall by one to that level.
_REACH = tuple(sum(high < low + LOSS for high in _LEVELS) for low in _LEVELS)


@dataclass(frozen=True, slots=True)
class Curve:
    """The posterior of V at some prefixes."""

    gaps: tuple[Gap, ...]
    loss: float
    """How likely V falls by `LOSS` or more between two neighbouring knots."""

    @classmethod
    def of(cls, knots: Sequence[Knot], *, steps: int) -> Curve:
        """Return it for at least two knots, in order, of a run of so many steps."""
        passes = [_passed(knots, min(_MOST_CHANGE, changes / steps)) for changes in _CHANGES]
        most = max(one.evidence for one in passes)
        weights = [math.exp(one.evidence - most) for one in passes]
        total = sum(weights)
        weights = [weight / total for weight in weights]
        gaps = [
            Gap(
                first=first,
                last=last,
                parts=tuple(
                    ([weight * value for value in one.gaps[index][0]], one.gaps[index][1])
                    for one, weight in zip(passes, weights, strict=True)
                ),
            )
            for index, (first, last) in enumerate(itertools.pairwise(knots))
        ]
        spared = sum(weight * one.spared for one, weight in zip(passes, weights, strict=True))
        return cls(tuple(gaps), 1 - spared)
