"""Each target takes some of its corpus and what is made of it, and every input that was once too much."""

from __future__ import annotations

from itertools import islice

import pytest
from fuzz.running import FOUND, bounded, given_in, inputs, tried
from fuzz.targets import TARGETS

QUICK = 100
"""Inputs of a cheap target; `.ci/run` tries each for seconds, `make fuzz` a million."""


@pytest.mark.parametrize("name", TARGETS)
def test_what_others_wrote_is_read_or_refused(name: str) -> None:
    """Nothing but a good answer or an error of the tree, in time."""
    target = TARGETS[name]
    made = islice(inputs(target, seed=1), max(5, QUICK // target.dear))
    with bounded(memory=None):
        assert [finding.what for given in made if (finding := tried(target, given))] == []


@pytest.mark.parametrize("name", sorted(path.name for path in FOUND.glob("*.json")))
def test_what_was_found_stays_mended(name: str) -> None:
    """An input that once raised something, or took too long, is read or refused."""
    with bounded(memory=None):
        finding = tried(TARGETS[name.rpartition("-")[0]], given_in(FOUND / name))
    assert finding is None, finding.where
