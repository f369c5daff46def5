"""A test that is run many times with its model, and judged by its rate of success."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tracefork_otel.settings import Settings

from ..agents.in_place import playing
from ..spelling import money
from ..statistics.betting import PairedDifferences
from ..store import open_store
from ..store.prices import Bill, bill
from .mode import mode_of

ALPHA = 0.05
"""Chance that the interval misses the rate on one side, at whatever trial it is looked at."""
_ARGUMENTS = ("times", "at_least", "budget")


@dataclass(slots=True)
class Rate:
    """Successes among trials, with an interval that holds however often it is looked at."""

    passed: int = 0
    failed: int = 0
    _last: str = field(default="")

    def bounds(self) -> tuple[float, float]:
        """Return bounds of the rate: each misses it with chance at most ALPHA, over all looks at once."""
        # A success is a difference of 1, a failure one of -1: their mean is 2 rate - 1.
        seen = PairedDifferences(plus=self.passed, minus=self.failed)
        return (1 + seen.lower(alpha=ALPHA)) / 2, (1 + seen.upper(alpha=ALPHA)) / 2

    def told(self) -> str:
        """Return the rate and its interval in words."""
        low, high = self.bounds()
        trials = self.passed + self.failed
        return f"{self.passed} of {trials} passed: {self.passed / trials:.2f}, {low:.2f} to {high:.2f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a mark asks for."""

    times: int = 20
    at_least: float = 0.8
    budget: float | None = None

    @classmethod
    def of(cls, item: pytest.Item) -> Asked:
        """Return what the item's mark says; fails the test where it says anything else."""
        mark = item.get_closest_marker("tracefork_outcome")
        given: dict[str, Any] = dict(mark.kwargs) if mark else {}
        strange = [name for name in given if name not in _ARGUMENTS]
        if (mark and mark.args) or strange:
            what = strange[0] if strange else "nameless arguments"
            pytest.fail(
                f"@pytest.mark.tracefork_outcome takes no {what}: it takes {', '.join(_ARGUMENTS)}",
                pytrace=False,
            )
        asked = cls(**given)
        wrong = (
            not isinstance(asked.times, int)
            or not isinstance(asked.at_least, int | float)
            or not isinstance(asked.budget, int | float | None)
            or asked.times < 1
            or not 0 < asked.at_least <= 1
            or (asked.budget is not None and not asked.budget >= 0)
        )
        if wrong:
            pytest.fail(
                f"tracefork_outcome: times={asked.times!r}, at_least={asked.at_least!r},"
                f" budget={asked.budget!r}: write a number of trials, a rate between 0 and 1, and dollars",
                pytrace=False,
            )
        return asked


def check(item: pytest.Item) -> None:
    """Skip the test unless models may be asked."""
    asked = Asked.of(item)
    if mode_of(item.config) != "live":
        most = "" if asked.budget is None else f", for at most {money(asked.budget)}"
        pytest.skip(
            f"it asks its model in {asked.times} trials{most}: pytest --tracefork=live {item.nodeid!r}"
        )


@contextmanager
def many_times(item: pytest.Item) -> Iterator[None]:
    """Have `item.runtest` run its test so many times within the block, and judge the rate."""
    own, asked = item.runtest, Asked.of(item)
    item.runtest = lambda: _run(item, own, asked)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del item.runtest


def _run(item: pytest.Item, own: Callable[[], None], asked: Asked) -> None:
    rate, spent, dearest, calls, last = Rate(), 0.0, 0.0, 0, ""
    ended = f"all {asked.times} trials"
    for _ in range(asked.times):
        if asked.budget is not None and spent + dearest > asked.budget:
            ended = f"the budget of {money(asked.budget)} would not hold another trial"
            break
        why, paid, asks = _trial(item, own)
        rate.passed, rate.failed = rate.passed + (why is None), rate.failed + (why is not None)
        spent, dearest, calls, last = spent + paid.usd, max(dearest, paid.usd), calls + asks, why or last
        if paid.unpriced and asked.budget is not None:
            pytest.fail(
                f"a call of this test has no price that is known ({'; '.join(paid.reasons)}), so that"
                " nothing holds it to its budget: leave the budget out if that is meant",
                pytrace=False,
            )
        low, high = rate.bounds()
        if high < asked.at_least or low >= asked.at_least:
            ended = "more trials would not change it"
            break
    trials = rate.passed + rate.failed
    low, high = rate.bounds() if trials else (0.0, 1.0)
    told = f"{rate.told()} ({ended}; {money(spent)})" if trials else ended
    item.add_report_section("call", "tracefork", told)
    item.user_properties += [
        ("tracefork", "asked"),
        ("tracefork_exchanges", calls),
        ("tracefork_cost_usd", spent),
        ("tracefork_pass_rate", rate.passed / trials if trials else None),
        ("tracefork_pass_rate_low", low),
        ("tracefork_pass_rate_high", high),
    ]
    if not trials:
        pytest.fail(f"no trial was run: {ended}", pytrace=False)
    if high < asked.at_least:
        pytest.fail(
            f"shown to pass in fewer than {asked.at_least:g} of its runs: {told}\n\nthe last that failed:\n"
            f"{last}",
            pytrace=False,
        )


def _trial(item: pytest.Item, own: Callable[[], None]) -> tuple[str | None, Bill, int]:
    """Run the test once; return how it failed, what its calls cost, and how many they were."""
    why: str | None = None
    with tempfile.TemporaryDirectory(prefix="tracefork-") as folder:
        how = Settings(mode="record", store=Path(folder), seal=False)
        with playing(how, secrets.token_hex(16), secrets.token_hex(8)):
            try:
                own()
            except pytest.skip.Exception:
                raise
            except (Exception, pytest.fail.Exception) as error:
                why = f"{type(error).__name__}: {error}"
            told: Any = getattr(item, "_excinfo", None)  # of a unittest.TestCase, which raises nothing
            if told:
                why = str(told[-1].value)
                told.clear()
        with open_store(folder) as store:
            asked = [one for run in store.runs() for one in run.exchanges]
    return why, bill(asked), len(asked)
