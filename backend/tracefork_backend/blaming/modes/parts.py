"""The search over parts of requests: each taken out of every request, beside re-runs with all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from ...spelling import counted
from ...statistics import chance_of_effect, e_bh, e_bh_adjusted
from ..contrast import Contrast
from ..findings import Effect, Findings, SetFinding, Verdict
from ..plan import Plan
from ..state import State
from ..tasks import Task, until
from ..trials import Arm
from .mode import Mode, Words, measured

# Up to so many parts each is tried alone; above, so many groups are tried first, and their members then.
MOST_ALONE = 12

# Blocks before which no part is closed, and after which each is.
_LEAST = 6
_MOST = 60

# A part is closed once an effect this large, in either direction, is less likely than that. No error rate
# depends on it: what is closed so says how large its effect may still be.
_MATTERS = 0.4
_UNLIKELY = 0.05

# Those without an effect alone are taken out together until it is shown that the run fails no more than so
# much more often, or for so many blocks.
_BOUND = 0.15
_TOGETHER_MOST = 60

# So many blocks, over the square of a bound, show it of an agent whose re-runs fail now and then.
_PER_BOUND = 2

_PAIRS_PER = 5
"""Pairs that show a bound, times it, of an agent whose re-runs never fail."""

_PAIRS_PER_SPREAD = 6
"""The same over the square of a bound, times the variance of both rates, where re-runs fail now and then."""

_LOG_PER_PAIR = 0.69
"""About what a pair adds to a log e-value, over the square of the effect."""

# What an arm is taken for before its first trial, as in an estimate.
_PRIOR = (0.5, 4.5)

_GROUPS = "groups"
_TOGETHER = "together"


class Parts(Mode):
    """A race in step: each look reads as many blocks of each part that is open as of the one control.

    So what is known at a look says nothing of the blocks to come, of whichever part, though all share a
    control. A block is one trial of each in the same run; looks are taken after whole turns of the runs.
    """

    name = found = "parts"
    assumes = "one part has an effect of {effect:g}"
    words = Words(
        lost="Removing part {step} changes how often the run fails.",
        won="Removing part {step} changes how often the run fails.",
        treated="removed",
        treated_fully="removed from every request",
        chart="Dots: how much more often the run fails without the part than with it. Bars: where the true "
        "effect may lie. At 0 the part makes no difference.",
        axis="how much more often the run fails",
    )

    def search(self, state: State) -> Task[None]:
        """Run to the end; the state then holds the answer."""
        state.mode, state.phase = self.name, "parts"
        control = state.baseline = state.ledger.removing(())
        yield from until((control, _turns(state, _LEAST)))
        if not control.defined:
            state.stop_reason = "aborted"
            return
        alone = list(state.tested)
        if len(alone) > MOST_ALONE:
            alone = yield from _groups(state)
        yield from _race(state, alone)
        yield from _all_together(state)
        found = state.certified or any(one.verdict == "certified" for one in state.sets)
        state.stop_reason = "certified" if found else "none_found"

    def effects(self, state: State) -> list[Effect]:
        """Return what is known about each part."""
        q_values = self.q_values(state)
        found: list[Effect] = []
        for part in range(state.plan.steps):
            verdict, reason = self.verdict(state, part)
            contrast = self.contrast(state, part)
            numbers: dict[str, Any] = {}
            if contrast is not None:
                numbers = {**measured(contrast, level=1 - state.plan.alpha), "q_value": q_values[part]}
                # Evidence in the direction in which there is more.
                log_e = max(contrast.log_e, turned(contrast).log_e)
                numbers |= {"log_e": log_e, "e_value": math.exp(min(log_e, 700.0))}
            found.append(Effect(step=part, verdict=verdict, reason=reason, **numbers))
        return found

    def q_values(self, state: State) -> dict[int, float]:
        """Return the smallest alpha at which each part would be certified, in either direction."""
        values = e_bh_adjusted(_evidence(state, confirmed=False))
        both = zip(values[: state.plan.steps], values[state.plan.steps : -2], strict=True)
        return {part: min(pair) for part, pair in enumerate(both)}

    def verdict(self, state: State, step: int) -> tuple[Verdict, str]:
        """Return what is decided about a part, and why, in words."""
        if step in state.certified:
            contrast = state.contrasts[step]
            more = "more" if (contrast.effect or 0.0) > 0 else "less"
            return "certified", f"without it the run fails {more} often, at any stopping time"
        if step in state.closed:
            return state.closed[step]
        contrast = self.contrast(state, step)
        if contrast is not None:
            return "inconclusive", f"not settled before the end, after {counted(contrast.blocks, 'pair')}"
        group = _group_of(state, step)
        if group is not None:
            return "inconclusive", (
                f"without parts {group.treatment.steps[0]} to {group.treatment.steps[-1]} together "
                f"{group.treatment.flips} of {group.blocks} forks failed, with all of them "
                f"{group.control.flips}; not settled before the end"
            )
        return "untested", "the experiment ended before it was tested"

    def contrast(self, state: State, step: int) -> Contrast | None:
        """Return what a part was read by; before the first look, by the whole turns that there are."""
        return state.contrasts.get(step) or _so_far(state, state.ledger.removing((step,)))

    def message(self, state: State, found: Findings) -> str | None:
        """Return the finding in one sentence, by the parts' names."""
        if found.stop_reason == "aborted":
            return None
        names = [name for name, _ in state.plan.parts] or [f"part {at}" for at in range(state.plan.steps)]
        sure = sorted(
            (one for one in found.effects if one.verdict == "certified"), key=lambda one: -(one.effect or 0.0)
        )
        said = [
            f"{names[one.step]} carries success: without it the run fails {_told(one)} more often"
            if (one.effect or 0.0) > 0
            else f"{names[one.step]} costs success: without it the run fails {_told(one)} less often"
            for one in sure
        ]
        joint = next((one for one in found.sets if one.verdict == "certified"), None)
        if joint is not None:
            more = "more" if (joint.effect or 0.0) > 0 else "less"
            said.append(
                f"without {len(joint.steps)} of the parts together the run fails {more} often, though no "
                "single one of them was seen to matter: one stands in for another, or each does a little"
            )
        message = "; ".join(said) or "no part is shown to carry success, or to cost it"
        return message + (_to_come(state, found) if found.stop_reason in ("budget", "max_trials") else "")

    def ranking(self, state: State, effects: Sequence[Effect]) -> tuple[int, ...]:
        """Order the parts that have something to say: those that carry most first."""
        order = [
            effect.step
            for wanted in ("certified", "inconclusive")
            for effect in sorted(effects, key=lambda one: (-abs(one.effect or 0.0), one.step))
            if effect.verdict == wanted
        ]
        return tuple(dict.fromkeys(order))


def _to_come(state: State, found: Findings) -> str:
    """Say how far an experiment came that a limit ended, and what settling the rest is likely to take."""
    pairs = sorted({one.pairs for one in found.effects if one.verdict == "inconclusive" and one.pairs})
    each = " to ".join(map(str, pairs[:1] + pairs[1:][-1:]))
    of = f" ({each} of each part that is not settled, beside as many with all)" if pairs else ""
    forks = _missing(state)
    most = math.ceil((found.trials + 1.5 * forks) / 10) * 10
    limit = "--budget USD" if found.stop_reason == "budget" else f"--max-trials {most}"
    return (
        f", after {counted(found.trials, 'fork')}{of}; "
        f"about {forks} more may settle the rest: blame resume last {limit}"
    )


def _missing(state: State) -> int:
    """Return about how many more forks a search takes if its arms go on as they have so far."""
    seen: dict[tuple[int, ...], Contrast | None] = {}
    for part in state.tested:
        if part not in state.certified and part not in state.closed:
            alone = PARTS.contrast(state, part)
            group = None if alone else _group_of(state, part)
            seen[group.treatment.steps if group else (part,)] = alone or group
    enough = [_enough(state, one) for one in seen.values()]
    forks = sum(
        blocks - (one.blocks if one else 0) for blocks, one in zip(enough, seen.values(), strict=True)
    )
    forks += max([0, *(blocks - len(state.ledger.removing(()).outcomes) for blocks in enough)])
    whole = state.contrasts.get(_ALL)
    last = _showing(state.plan.bound or _BOUND, _rates(whole))
    last = min(last, max(_TOGETHER_MOST, _most(state.plan)))
    return forks + 2 * max(1, last - (whole.blocks if whole else 0))


def _rates(seen: Contrast | None) -> list[float]:
    """Return how often both arms fail, a little off 0 and 1; 0 where nothing is seen."""
    arms = (seen.treatment, seen.control) if seen else ()
    return [(arm.flips + _PRIOR[0]) / (len(arm.defined) + sum(_PRIOR)) for arm in arms] or [0.0, 0.0]


def _showing(bound: float, rates: Sequence[float]) -> int:
    """Return about how many pairs show that nothing is followed by so much more failure."""
    spread = sum(rate * (1 - rate) for rate in rates)
    return math.ceil(max(_PAIRS_PER / bound, _PAIRS_PER_SPREAD * spread / bound**2))


def _enough(state: State, seen: Contrast | None) -> int:
    """Return about how many pairs settle it, if both rates stay as they are."""
    rates, least = _rates(seen), _turns(state, _LEAST)
    if state.plan.bound is not None:
        least = _turns(state, _showing(state.plan.bound, rates))
    claims = math.log(2 * (state.plan.steps + 1) / state.plan.alpha)
    for blocks in range(least, _most(state.plan), state.plan.strata):
        first, last = ((round(rate * blocks), blocks) for rate in rates)
        if blocks * _LOG_PER_PAIR * (rates[0] - rates[1]) ** 2 >= claims or all(
            chance_of_effect(_MATTERS, treatment=one, control=other) < _UNLIKELY
            for one, other in ((first, last), (last, first))
        ):
            return max(blocks, seen.blocks + 1 if seen else 0)
    return _most(state.plan)


def _told(effect: Effect) -> str:
    """Return how large an effect is, in either direction, with its interval."""
    size, low, high = effect.effect or 0.0, effect.ci_low, effect.ci_high
    if low is None or high is None:
        return f"{abs(size):.2f}"
    if size < 0:
        low, high = -high, -low
    return f"{abs(size):.2f} ({low:.2f} to {high:.2f})"


def bounded(contrast: Contrast, *, level: float, without: str = "it") -> str:
    """Return how large the effect may be, as the interval says, in words."""
    low, high = contrast.interval(level=level)
    more, less = max(0.0, high), max(0.0, -low)
    return f"without {without} the run fails at most {more:.2f} more often, or {less:.2f} less"


def _turns(state: State, blocks: int) -> int:
    """Return so many blocks, or as many more as make whole turns of the runs."""
    return math.ceil(blocks / state.plan.strata) * state.plan.strata


def _read(treatment: Arm, control: Arm, blocks: int) -> Contrast:
    """Return the contrast of the two over so many blocks: the control may have gone on for other parts."""
    found = Contrast(_first(treatment, blocks), _first(control, blocks))
    found.fold()
    return found


def _first(arm: Arm, trials: int) -> Arm:
    """Return the arm with its first trials alone."""
    found = Arm(arm_id=arm.arm_id, role=arm.role, steps=arm.steps, altered=arm.altered, kept=arm.kept)
    for replicate, outcome in enumerate(arm.outcomes[:trials]):
        found.record(replicate, outcome, "", shared=arm.shared)
    return found


def _level(state: State, arms: Sequence[Arm], blocks: int) -> Task[None]:
    """Wait until all arms have so many outcomes, which are asked for turn by turn of the runs.

    So a limit on the way there leaves each arm with as much as the others, to within a turn.
    """
    turns = range(state.plan.strata, blocks + 1, state.plan.strata)
    yield from until(*((arm, trials) for trials in turns for arm in arms))


def _so_far(state: State, treatment: Arm, *, use: str = "") -> Contrast | None:
    """Return what the whole turns of an arm and its control show, None where there are none."""
    control = state.ledger.removing((), use=use)
    blocks = min(len(treatment.outcomes), len(control.outcomes))
    blocks -= blocks % state.plan.strata
    return _read(treatment, control, blocks) if blocks else None


def _group_of(state: State, part: int) -> Contrast | None:
    """Return what the group shows that a part was taken out with, None where it was in none."""
    groups = (arm for arm in state.ledger.arms.values() if arm.scope == _GROUPS and part in arm.altered)
    group = next(groups, None)
    return None if group is None else _so_far(state, group, use=_GROUPS)


def _keep(state: State, part: int, contrast: Contrast) -> Contrast:
    """Keep what was read of a part, for both claims."""
    state.contrasts[part], state.turned[part] = contrast, turned(contrast)
    return contrast


def turned(contrast: Contrast) -> Contrast:
    """Return the same blocks read for the other claim: that the control flips more often."""
    other = Contrast(contrast.control, contrast.treatment, paired=contrast.paired)
    other.fold()
    return other


def _evidence(state: State, *, confirmed: bool) -> list[float]:
    """Return the log e-values of all claims: that each part carries, that each harms, and both of all
    together; 0 where nothing was bet, and where it is to be `confirmed`, if the interval does not say so too.
    """
    level = 1 - state.plan.alpha
    parts = range(state.plan.steps)
    claims = [(known, part) for known in (state.contrasts, state.turned) for part in parts]
    claims += [(state.contrasts, _ALL), (state.turned, _ALL)]
    found: list[float] = []
    for known, part in claims:
        one = known.get(part)
        if one is None or (confirmed and not (one.blocks and one.excludes_zero(level=level))):
            found.append(0.0)
        else:
            found.append(one.log_e)
    return found


_ALL = -1
"""Stands for all parts that show nothing alone, taken out together."""


def _certify(state: State) -> bool:
    """Certify what e-BH rejects now, and tell whether that is so of all together."""
    parts = state.plan.steps
    rejected = e_bh(_evidence(state, confirmed=True), alpha=state.plan.alpha)
    state.certified |= {at % parts for at in rejected if at < 2 * parts}
    return any(at >= 2 * parts for at in rejected)


def _race(state: State, parts: Iterable[int]) -> Task[None]:
    """Read blocks of all open parts in step until each is certified or closed."""
    racing = list(parts)
    control = state.ledger.removing(())
    blocks = 0
    while racing:
        blocks = _turns(state, max(_LEAST, blocks + 1))
        arms = [state.ledger.removing((part,)) for part in racing]
        yield from _level(state, (control, *arms), blocks)
        for part, arm in zip(racing, arms, strict=True):
            _keep(state, part, _read(arm, control, blocks))
        _certify(state)
        racing = [part for part in racing if part not in state.certified and not _closed(state, part)]


def _closed(state: State, part: int) -> bool:
    """Close a part that is not worth more blocks, and say why."""
    contrast = state.contrasts[part]
    if not contrast.treatment.defined and contrast.blocks >= _LEAST:
        state.closed[part] = (
            "not_intervenable",
            f"none of {contrast.blocks} forks without it could be graded",
        )
        return True
    enough = contrast.blocks >= _most(state.plan)
    if _nothing(contrast) and (enough or _narrow(state, part)):
        found = bounded(contrast, level=1 - state.plan.alpha)
        state.closed[part] = ("screened_out", f"no effect found in {contrast.blocks} pairs: {found}")
        return True
    if enough:
        state.closed[part] = ("inconclusive", f"not settled after {contrast.blocks} pairs")
    return enough


def _narrow(state: State, part: int) -> bool:
    """Tell whether the run is shown to fail no more than so much more often, where that was asked for."""
    bound = state.plan.bound
    return bound is None or state.contrasts[part].high.within(bound, alpha=state.plan.alpha / 2)


def _most(plan: Plan) -> int:
    """Return after how many blocks a part is closed, whatever is known of it."""
    return _MOST if plan.bound is None else max(_MOST, math.ceil(_PER_BOUND / plan.bound**2))


def _nothing(contrast: Contrast) -> bool:
    """Tell whether a large effect is unlikely, in either direction."""
    return all(one.chance(_MATTERS) < _UNLIKELY for one in (contrast, turned(contrast)))


def _groups(state: State) -> Task[list[int]]:
    """Take parts out in groups, and return the members of those that show something, or are not settled."""
    size = math.ceil(len(state.tested) / MOST_ALONE)
    groups = [state.tested[at : at + size] for at in range(0, len(state.tested), size)]
    control = state.ledger.removing((), use=_GROUPS)
    racing, alone = list(groups), list[int]()
    blocks = 0
    while racing:
        blocks = _turns(state, max(_LEAST, blocks + 1))
        arms = [state.ledger.removing(group, use=_GROUPS) for group in racing]
        yield from _level(state, (control, *arms), blocks)
        still: list[tuple[int, ...]] = []
        for group, arm in zip(racing, arms, strict=True):
            contrast = _read(arm, control, blocks)
            if _nothing(contrast) and contrast.treatment.defined:
                found = bounded(contrast, level=1 - state.plan.alpha, without="all of them")
                for part in group:
                    state.closed[part] = (
                        "screened_out",
                        f"no effect found in {blocks} pairs of parts {group[0]} to {group[-1]} taken out "
                        f"together: {found}",
                    )
            elif _stands_out(contrast) or blocks >= _MOST:
                alone += group
            else:
                still.append(group)
        racing = still
    return sorted(alone)


def _stands_out(contrast: Contrast) -> bool:
    """Tell whether an effect is likely enough for members to be tried alone."""
    return any(one.chance(_MATTERS / 2) > 1 - _UNLIKELY for one in (contrast, turned(contrast)))


def _all_together(state: State) -> Task[None]:
    """Take out together, on fresh forks, all parts that show nothing alone: one may stand in for another."""
    parts = tuple(part for part, (verdict, _) in sorted(state.closed.items()) if verdict == "screened_out")
    if len(parts) < 2:
        return
    arm, control = state.ledger.removing(parts, use=_TOGETHER), state.ledger.removing((), use=_TOGETHER)
    whole = _keep(state, _ALL, _read(arm, control, 0))
    alpha = state.plan.alpha / 2
    blocks, certified = 0, False
    try:
        while blocks < max(_TOGETHER_MOST, _most(state.plan)) and not certified:
            blocks = _turns(state, max(_LEAST, blocks + 1))
            yield from _level(state, (arm, control), blocks)
            whole = _keep(state, _ALL, _read(arm, control, blocks))
            certified = _certify(state)
            if whole.high.within(state.plan.bound or _BOUND, alpha=alpha):
                break
    finally:
        state.sets = [_together(state, parts, certified=certified)]


def _together(state: State, parts: tuple[int, ...], *, certified: bool) -> SetFinding:
    """Return what is known of those parts taken out together."""
    whole = state.contrasts[_ALL]
    verdict: Verdict = "untested"
    reason = "the experiment ended before they were taken out together"
    low = high = None
    if whole.blocks:
        low, high = whole.interval(level=1 - state.plan.alpha)
        verdict = "screened_out"
        found = bounded(whole, level=1 - state.plan.alpha, without="all of them")
        reason = f"no effect found in {whole.blocks} pairs: {found}"
    if certified:
        more = "more" if (whole.effect or 0.0) > 0 else "less"
        verdict = "certified"
        reason = f"without all of them the run fails {more} often, though no single one was seen to matter"
    return SetFinding(
        steps=parts,
        kind="and",
        verdict=verdict,
        reason=reason,
        flip_rate=whole.treatment.rate,
        log_e_min=max(whole.log_e, state.turned[_ALL].log_e),
        n_trials=len(whole.treatment.outcomes) + len(whole.control.outcomes),
        effect=whole.effect,
        ci_low=low,
        ci_high=high,
    )


PARTS = Parts()
