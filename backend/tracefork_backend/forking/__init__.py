"""Forks made: their files, their agent started, their records read and counted, their spans written."""

from __future__ import annotations

from .forker import Forker
from .result import Fork, Problem, ProblemKind

__all__ = ["Fork", "Forker", "Problem", "ProblemKind"]
