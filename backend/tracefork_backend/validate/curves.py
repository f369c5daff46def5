"""Curves of V that value mode is held to: measured on real agents by brute force, and drawn to be hard."""

from __future__ import annotations

import random

from .worlds import Pivot

REAL = {
    "clerk .27 .17 .20 0 0": (0.27, 0.17, 0.20, 0.0, 0.0),
    "clerk .21 .22 .22 .29 0": (0.21, 0.22, 0.22, 0.29, 0.0),
    "clerk .21 .13 .15 .34 0": (0.21, 0.13, 0.15, 0.34, 0.0),
    "clerk .21 .13 .15 0 0": (0.21, 0.13, 0.15, 0.0, 0.0),
    "hops .16 .16 .16 0 0 0": (0.16, 0.16, 0.16, 0.0, 0.0, 0.0),
    "triage .16 .19 .20 0": (0.16, 0.19, 0.20, 0.0),
    "react .30 .30 .28 0": (0.30, 0.30, 0.28, 0.0),
    "react .30 .30 .28 .43 0": (0.30, 0.30, 0.28, 0.43, 0.0),
}
"""A small language model's, each with one main drop (research: 3 to 8 steps, 300 runs a prefix)."""

MIDDLING = {
    "check .47 .15 0": (0.47, 0.15, 0.0),
    "check .47 .77 .43 .19 .38 .13 .23 .49 0": (0.47, 0.77, 0.43, 0.19, 0.38, 0.13, 0.23, 0.49, 0.0),
    "check .47 .77 .43 .75 .38 .07 0": (0.47, 0.77, 0.43, 0.75, 0.38, 0.07, 0.0),
}
"""The same model's, with several drops between middling levels."""

FLAT = tuple((steps, level) for steps in (5, 12) for level in (0.1, 0.3, 0.5, 0.9))
"""Steps and level of curves on which no step is to blame."""


def world(curve: tuple[float, ...]) -> Pivot:
    """Return the world of a curve; its cause is the step that loses most."""
    steps = len(curve) - 1
    most = max(range(steps), key=lambda step: curve[step] - curve[step + 1])
    causes = (most,) if curve[most] > curve[most + 1] else ()
    return Pivot(steps=steps, curve=curve, causes=causes)


def flat(steps: int, level: float) -> Pivot:
    """Return a world in which every prefix leaves the same chance, all responses kept too."""
    return world((level,) * (steps + 1))


def single(steps: int, high: float, place: str, low: float = 0.0) -> Pivot:
    """Return a world of one drop: `early`, at the `middle`, or `late`, at the last step."""
    at = {"early": 0, "middle": steps // 2, "late": steps - 1}[place]
    return world((high,) * (at + 1) + (low,) * (steps - at))


def constant(one: Pivot, _rng: random.Random) -> Pivot:
    """Return the world itself: nothing of it is drawn."""
    return one
