"""Blame's mathematics: numbers in, numbers out; imports `math` and nothing of ours."""

from __future__ import annotations

from .betting import PairedDifferences
from .bounds import rate_bounds
from .intervals import wilson
from .multiplicity import e_bh, e_bh_adjusted
from .posterior import chance_of_effect
from .sprt import Sprt
from .two_by_two import LOG_MAX_FACTOR, TwoByTwo

__all__ = [
    "LOG_MAX_FACTOR",
    "PairedDifferences",
    "Sprt",
    "TwoByTwo",
    "chance_of_effect",
    "e_bh",
    "e_bh_adjusted",
    "rate_bounds",
    "wilson",
]
