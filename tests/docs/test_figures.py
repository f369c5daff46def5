"""The page of figures says what the benchmarks last measured."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_made_from_the_results() -> None:
    """docs/figures.md is what `python benchmarks/figures.py` writes from benchmarks/results."""
    written = runpy.run_path(str(ROOT / "benchmarks" / "figures.py"))["page"]()
    assert (ROOT / "docs" / "figures.md").read_text() == written
