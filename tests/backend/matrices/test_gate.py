"""A gate by interval: it passes, fails, or says how many forks would tell."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from tracefork_backend.matrices.cells import Cell
from tracefork_backend.matrices.gate import Gate, Gated
from tracefork_backend.statistics import wilson

from tracefork_otel.errors import UsageError

GATE = Gate.asked("pass_rate >= 0.8")


def of(passed: int, failed: int, undefined: int = 0) -> Gated:
    """What the gate says of a cell with these outcomes."""
    outcomes = [True] * passed + [False] * failed + [None] * undefined
    forks = cast("Any", tuple(SimpleNamespace(outcome=one) for one in outcomes))
    cell = Cell(
        run_id="ab" * 16, run_name="trip", step=1, variant="resample", wanted=len(outcomes), forks=forks
    )
    (found,) = GATE.of((cell,))
    return found


def test_three_ends() -> None:
    """By the interval's ends; what was not graded may have been either."""
    assert of(20, 0).end == "passes"
    assert of(3, 17).end == "fails"
    assert of(17, 3).end == "not shown"
    assert of(20, 0, undefined=5).end == "not shown"
    assert of(0, 12, undefined=8).end == "fails"
    assert "no fork was graded" in of(0, 0, undefined=3).text


def test_how_many_more_settle_it() -> None:
    """As many forks of this rate pass, clearly fewer do not; one that is the gate's is never settled."""
    told = of(17, 3)
    times = int(told.text.rpartition("--times ")[2].rstrip(")"))
    assert wilson(round(0.85 * times), times)[0] >= 0.8
    assert wilson(round(0.85 * (times - 30)), times - 30)[0] < 0.8
    assert f"about {times - 20} more forks" in told.text
    assert "no number of forks" in of(8, 2).text


@pytest.mark.parametrize(
    "text", ["", "0.8", "pass_rate > 0.8", "pass_rate >= 80", "pass_rate >= 1", "cost >= 0.2"]
)
def test_what_is_no_gate(text: str) -> None:
    """It is refused with one that is."""
    with pytest.raises(UsageError, match="such as --gate"):
        Gate.asked(text)
