"""The search by intervention: a change is tried at each step, against controls that keep the step."""

from __future__ import annotations

import math
from typing import Any

from ..confirm import confirm
from ..contrast import PAIRED_SHARE
from ..controls import controls
from ..roots import label_roots
from ..screen import screen
from ..sets import SINGLES_SHARE, find_sets
from ..state import State
from ..tasks import Task, together, until
from .mode import Mode


class Intervene(Mode):
    """Controls, screening, confirmation, sets, roots."""

    name = found = "intervene"

    def search(self, state: State) -> Task[None]:
        """Run to the end; the state then holds the answer."""
        state.mode = self.name
        state.singles_share = SINGLES_SHARE
        if not state.tested:
            state.stop_reason = "none_found"
            return
        if not (yield from controls(state, steady=True)):
            return
        if state.deterministic and not (yield from _one_fork_each(state)):
            state.deterministic = False
        if not state.deterministic:
            groups = yield from screen(state)
            yield from confirm(state, state.candidates)
            if groups:
                alone = yield from find_sets(state, groups)
                state.candidates += [step for step in alone if step not in state.candidates]
                yield from confirm(state, alone)
            yield from label_roots(state)
        found = state.certified or any(found.verdict == "certified" for found in state.sets)
        state.stop_reason = "certified" if found else "none_found"

    def counts(self, state: State, step: int) -> dict[str, Any]:
        """Return the counts; where the agent is deterministic, one fork says all."""
        found = super().counts(state, step)
        treatment = state.ledger.arms.get(f"alter:{step}")
        if state.deterministic and treatment is not None and treatment.defined:
            flipped = float(treatment.outcomes[0] is True)
            found.update(
                control_rate=0.0, effect=flipped, ci_low=flipped, ci_high=flipped, ci_kind="deterministic"
            )
        return found


def _one_fork_each(state: State) -> Task[bool]:
    """Fork each step once, those that flip as often as it takes to rule out luck; False if two forks of one
    step differ, so the agent is not deterministic.
    """
    state.phase = "screen"
    arms = {step: state.ledger.alter((step,)) for step in state.tested}
    yield from together([until((arm, 1)) for arm in arms.values()])
    flipped = [step for step, arm in arms.items() if arm.outcomes[0]]
    yield from together([until((arms[step], 2)) for step in flipped])
    if not all(arms[step].alike(True) for step in flipped):
        return False
    kept = {step: state.ledger.keep(step) for step in flipped}
    shared = False
    while True:
        pairs = _pairs(state, shared=shared)
        yield from together([until((arms[step], pairs), (kept[step], pairs)) for step in flipped])
        if not all(arms[step].alike(True) and kept[step].alike(False) for step in flipped):
            return False
        if shared or not any(arms[step].shared or kept[step].shared for step in flipped):
            break
        shared = True
    for step, arm in arms.items():
        if arm.outcomes[0] is None:
            state.closed[step] = ("not_intervenable", "its fork could not be graded")
        elif not arm.outcomes[0]:
            state.closed[step] = (
                "screened_out",
                "its fork came out as the run did, and the agent is deterministic",
            )
    state.certified.update(flipped)
    if flipped:
        state.roots.add(flipped[0])
        return True
    rest = tuple(step for step in state.tested if state.closed[step][0] == "screened_out")
    if len(rest) > 1:
        whole = state.ledger.alter(rest)
        yield from until((whole, 1))
        if whole.outcomes[0]:
            alone = yield from find_sets(state, [rest])
            state.certified.update(alone)
    return True


def _pairs(state: State, *, shared: bool) -> int:
    """Return how many pairs must all agree, so that noise passes for a cause at some step with at most alpha.

    Where an intervention flips no more than its control does, m pairs are all (flipped, kept) with at most
    max over p of (p (1 - p))^m = 4^-m; where they share what models answered, with at most 2^-m. An agent
    that answers with one word is alike by chance often enough. Alpha is divided between the two cases as in
    `Contrast.log_e`.
    """
    base, share = (2, PAIRED_SHARE) if shared else (4, 1 - PAIRED_SHARE)
    return max(2, math.ceil(math.log(len(state.tested) / (share * state.singles_alpha), base)))


INTERVENE = Intervene()
