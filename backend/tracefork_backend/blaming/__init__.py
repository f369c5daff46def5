"""Which step lost the run: a search that asks for forks, and statistics that hold at any stopping time."""

from __future__ import annotations

from .drive import Spent, run
from .findings import Drop, Effect, Findings, SetFinding
from .forecast import Estimate, estimate
from .plan import Plan
from .search import Search
from .trials import Phase, Role, TrialRequest

__all__ = [
    "Drop",
    "Effect",
    "Estimate",
    "Findings",
    "Phase",
    "Plan",
    "Role",
    "Search",
    "SetFinding",
    "Spent",
    "TrialRequest",
    "estimate",
    "run",
]
