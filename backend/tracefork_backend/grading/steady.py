"""Whether an oracle grades alike what is alike: one that errs by chance hides what a step does."""

from __future__ import annotations

import hashlib

from .graded import Graded
from .oracle import Oracle, name_of


class Steady:
    """What was graded so far, by all that an oracle is shown but the run's name."""

    def __init__(self) -> None:
        self._outcomes: dict[bytes, bool] = {}

    def after(self, oracle: Oracle, graded: Graded, outcome: bool | None) -> tuple[str, ...]:
        """Return what there is to say of that outcome: nothing, unless an equal end had the other one."""
        if outcome is None:
            return ()
        shown = (graded.text, graded.last_text, graded.stdout, graded.stderr, str(graded.exit_status))
        digest = hashlib.sha256()
        for text in shown:
            digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        if self._outcomes.setdefault(digest.digest(), outcome) == outcome:
            return ()
        return (
            f"the oracle {name_of(oracle)} graded two forks differently that put out the same: "
            "it goes by something beside the output, or by chance, and then it hides what a step does",
        )
