"""A treatment arm against its control: the e-value, the interval, and what undefined trials leave open."""

from __future__ import annotations

import math

from ..statistics import LOG_MAX_FACTOR, PairedDifferences, TwoByTwo, chance_of_effect, rate_bounds
from .tasks import Task, until
from .trials import Arm

# Pairs asked for at once: enough to keep a few workers busy, few enough to waste little when the answer
# comes.
_MOST_PAIRS = 4

PAIRED_SHARE = 0.1
"""The weight of the bet that holds under sharing: small, so that trials that share nothing lose a tenth."""


class Contrast:
    """Block t is the t-th trial of each arm; trials from before the control existed are paired with it later.

    Read at its worst, an undefined treatment did not flip and an undefined control did when the claim is
    that the effect is large, and the other way round when the claim is that it is small. So e-value and
    interval hold whatever made trials undefined.
    """

    __slots__ = ("blocks", "control", "high", "low", "paired", "test", "treatment")

    def __init__(self, treatment: Arm, control: Arm, *, paired: float = PAIRED_SHARE) -> None:
        self.treatment = treatment
        self.control = control
        self.paired = paired
        self.blocks = 0
        self.test = TwoByTwo()
        self.low = PairedDifferences()
        self.high = PairedDifferences()

    def fold(self) -> None:
        """Bring the statistics up to the last complete block.

        Called when both arms are level, so that the moment of reading never depends on half of a block.
        """
        treated, controls = self.treatment.outcomes, self.control.outcomes
        end = min(len(treated), len(controls))
        for block in range(self.blocks, end):
            x, y = treated[block], controls[block]
            low_x, low_y = x is True, y is not False
            self.test.update(low_x, low_y)
            self.low.update(low_x, low_y)
            self.high.update(x is not False, y is True)
        self.blocks = max(self.blocks, end)

    def level(self) -> Task[None]:
        """Draw the controls that the treatments drawn so far lack, then fold."""
        yield from self._reach(len(self.treatment.outcomes))

    @property
    def behind(self) -> bool:
        """Whether some treatments wait for their controls."""
        return self.blocks < len(self.treatment.outcomes)

    def draw(self, log_threshold: float, *, most: int = _MOST_PAIRS) -> Task[None]:
        """Draw as many more blocks as could at the soonest decide, then fold."""
        pairs = int((log_threshold - self.log_e) / LOG_MAX_FACTOR) + 1 if log_threshold < math.inf else most
        yield from self._reach(self.blocks + max(1, min(most, pairs)))

    def settle(
        self, log_threshold: float, *, worth: float, unlikely: float, least: int, most: int, attempts: int
    ) -> Task[bool | None]:
        """Draw blocks until the log e-value reaches the threshold: True.

        False once an effect of `worth` is unlikely after `least` blocks; None after `most` or `attempts`.
        """
        while self.log_e < log_threshold:
            if self.blocks >= least and self.chance(worth) < unlikely:
                return False
            if self.blocks >= most or self.attempts >= attempts:
                return None
            yield from self.draw(log_threshold)
        return True

    def _reach(self, blocks: int) -> Task[None]:
        yield from until((self.treatment, blocks), (self.control, blocks))
        self.fold()

    @property
    def attempts(self) -> int:
        """The trials of the longer arm, graded or not: what limits a test whose forks are often lost."""
        return max(len(self.treatment.outcomes), len(self.control.outcomes))

    @property
    def log_e(self) -> float:
        """The log e-value against "no effect" over the complete blocks, whatever the two arms share.

        The 2x2 test asks that a block's two trials are independent, the bet on their differences does not.
        As long as no trial was answered from memory, the e-value is their mean with fixed weights; then the
        2x2 test counts as nothing. It stays an e-value: had what was shared been drawn anew, the 2x2 test
        of those trials would hold, and where nothing was shared they are the trials at hand.
        """
        return self._joined(self.test.log_e)

    @property
    def shared(self) -> bool:
        """Whether a trial of either arm was answered from the memory of its replicate."""
        return self.treatment.shared or self.control.shared

    def _joined(self, independent: float) -> float:
        paired = self.low.log_e(0.0) + math.log(self.paired)
        if self.shared:
            return paired
        independent += math.log(1 - self.paired)
        most = max(paired, independent)
        return most + math.log(math.exp(paired - most) + math.exp(independent - most))

    @property
    def log_e_defined(self) -> float:
        """What the log e-value would be if undefined trials had nothing to do with flips."""
        test = TwoByTwo()
        for x, y in zip(self.treatment.defined, self.control.defined, strict=False):
            test.update(x, y)
        return self._joined(test.log_e)

    def excludes_zero(self, *, level: float) -> bool:
        """Tell whether `interval(level=level)` lies above 0, without working it out."""
        return self.low.log_e(0.0) > -math.log((1 - level) / 2)

    def interval(self, *, level: float) -> tuple[float, float]:
        """Return bounds of the effect that hold together at `level`, at any look, whatever was undefined."""
        alpha = (1 - level) / 2
        return self.low.lower(alpha=alpha), self.high.upper(alpha=alpha)

    @property
    def effect(self) -> float | None:
        """The difference of the two flip rates over the outcomes that could be graded."""
        treated, control = self.treatment.rate, self.control.rate
        return None if treated is None or control is None else treated - control

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and greatest effect that the undefined trials leave possible for the trials drawn."""
        arm = self.treatment
        low, high = rate_bounds(flips=arm.flips, defined=len(arm.defined), undefined=arm.undefined)
        arm = self.control
        control_low, control_high = rate_bounds(
            flips=arm.flips, defined=len(arm.defined), undefined=arm.undefined
        )
        return low - control_high, high - control_low

    def chance(self, effect: float) -> float:
        """Return about how likely the effect is at least this large; for spending, not for blaming."""
        treatment, control = self.treatment, self.control
        return chance_of_effect(
            effect,
            treatment=(treatment.flips, len(treatment.defined)),
            control=(control.flips, len(control.defined)),
        )
