"""Among certified steps: which is the root, and which only echo it?"""

from __future__ import annotations

import math

from .contrast import Contrast
from .state import State
from .tasks import Task

# A step counts as decisive if its effect is at least this share of the largest: a faint one upstream is no
# root.
_DECISIVE_SHARE = 0.5

# Where the root alone flips so often, nothing later could add to it, so asking is money lost.
_CEILING = 0.9

# A label is worth so many pairs; e ≥ 20 says "adds" at 5 %. It decides a label, not whether a step is blamed.
_PAIRS = 16
_LOG_THRESHOLD = math.log(20)

# It is an echo once adding this much is unlikely.
_ADDS = 0.2
_UNLIKELY = 0.1
_LEAST_PAIRS = 6


def label_roots(state: State) -> Task[None]:
    """Mark the earliest decisive certified step as root, later ones as its echo or as roots of their own."""
    state.phase = "conditional"
    if not state.certified:
        return
    effects = {step: state.contrasts[step].effect or 0.0 for step in state.certified}
    largest = max(effects.values())
    decisive = sorted(step for step, effect in effects.items() if effect >= _DECISIVE_SHARE * largest)
    root = decisive[0]
    state.roots.add(root)
    rate = state.contrasts[root].treatment.rate
    if rate is not None and rate >= _CEILING:
        return
    for step in sorted(step for step in state.certified if step > root):
        both = state.ledger.alter((root, step), use="both", role="conditional", scope="root")
        alone = state.ledger.without((root, step), step, use="root")
        adds = yield from Contrast(both, alone).settle(
            _LOG_THRESHOLD,
            worth=_ADDS,
            unlikely=_UNLIKELY,
            least=_LEAST_PAIRS,
            most=_PAIRS,
            attempts=2 * _PAIRS,
        )
        if adds:
            state.roots.add(step)
        elif adds is False:
            state.echoes[step] = root
