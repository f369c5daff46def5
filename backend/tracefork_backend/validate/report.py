"""What a validation run measured: plain data that turns into JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One cell of one suite."""

    suite: str
    """A letter, A to M; `real` for forks of real runs."""
    cell: str
    runs: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One promise, and whether it was kept."""

    name: str
    value: float
    sense: Literal["at most", "at least"]
    limit: float
    runs: int

    @property
    def passed(self) -> bool:
        """Whether the value is on the right side of the limit."""
        return self.value <= self.limit if self.sense == "at most" else self.value >= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All suites and the gates."""

    quick: bool
    seed: str
    seconds: float
    rows: tuple[Row, ...]
    gates: tuple[Gate, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(gate.passed for gate in self.gates)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able data."""
        data = asdict(self)
        data["passed"] = self.passed
        for gate, shown in zip(self.gates, data["gates"], strict=True):
            shown["passed"] = gate.passed
        return data
