"""The page of an experiment on parts of requests: what changes the outcome, and what showed no effect."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

import pytest
from tracefork_backend.blaming.drive import run
from tracefork_backend.blaming.plan import Plan
from tracefork_backend.blaming.result import BlameResult, StepShown, Tables, tables_of
from tracefork_backend.blaming.search import Search
from tracefork_backend.blaming.trials import TrialRequest
from tracefork_backend.report.html import render_parts
from tracefork_backend.report.parts import parts_told

NAMES = ("You are <b>kind</b>.", "## Dates", "## Booking", "## Style")
TOKENS = (7, 19, 22, 27)


def tables(effects: Mapping[int, float], *, strata: int = 2, max_trials: int | None = None) -> Tables:
    """An experiment over simulated runs, in which the parts with an effect carry success so much."""
    rng = random.Random(5)

    def fails(request: TrialRequest) -> bool:
        return any(rng.random() < effects.get(part, 0.0) for part in request.altered)

    plan = Plan(
        steps=4,
        mode="parts",
        parent_failed=False,
        output=None,
        strata=strata,
        max_trials=max_trials,
        parts=tuple(zip(NAMES, TOKENS, strict=True)),
        deterministic="never",
    )
    spent = run(search := Search(plan), fails)
    result = BlameResult(
        experiment_id="69f210f6a4c985b1",
        run_id="4bf92f3577b34da6a3ce929d0e0e4736",
        findings=search.verdict(),
        trials=(),
        plan=plan,
        header={
            "tape_sha256": "",
            "created_ns": 1_764_600_000_000_000_000,
            "parent_outcome": True,
            "change": "without system",
            "oracle": "regex",
            "budget_usd": 2.0,
        },
        steps=[StepShown(part=name, tokens=tokens) for name, tokens in zip(NAMES, TOKENS, strict=True)],
    )
    found = tables_of(result)
    return Tables(
        experiment={**found.experiment, "forks": spent.trials}, effects=found.effects, sets=found.sets
    )


def sections(page: str) -> dict[str, str]:
    """What stands below each heading."""
    _, *found = re.split(r"<h2>", page)
    return {heading: rest for heading, _, rest in (one.partition("</h2>") for one in found)}


def test_the_page_has_the_two_tables_of_the_terminal() -> None:
    """What carries success with its interval, what showed no effect with its bound, tokens beside each."""
    known = tables({2: 0.95})
    page = render_parts(parts_told(known))
    assert "<h1>## Booking carries success.</h1>" in page
    shown = sections(page)
    sure, none = (shown[name] for name in shown if name.startswith(("What changes", "No effect found")))
    (row,) = (one for one in known.effects if one["step"] == 2)
    assert "## Booking" in sure
    assert "~22" in sure
    assert f"{row['effect']:+.2f} ({row['ci_low']:+.2f} to {row['ci_high']:+.2f})" in sure
    assert "## Booking" not in none
    for name, tokens in (("## Dates", 19), ("## Style", 27)):
        assert name in none
        assert f"~{tokens}" in none
    assert "fails at most" in none
    assert "All 3 of those together, about 53 tokens a call: no effect found" in none
    assert page.count("<svg") == 4
    assert "the tasks of these 2 runs" in page


def test_what_a_prompt_says_is_shown_and_not_obeyed() -> None:
    """A section's name is text on the page, which runs and loads nothing."""
    page = render_parts(parts_told(tables({2: 0.95})))
    assert "You are &lt;b&gt;kind&lt;/b&gt;." in page
    assert "<b>" not in page
    assert "<script" not in page
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    ("effects", "max_trials", "words"),
    [
        ({}, None, "<h1>No part was shown to matter.</h1>"),
        ({}, 5, "<h2>Not settled</h2>"),
        ({1: 0.95, 2: 0.95}, None, "<h1>2 of 4 parts change how often the run fails.</h1>"),
    ],
)
def test_every_end_has_a_page(effects: Mapping[int, float], max_trials: int | None, words: str) -> None:
    """Where nothing was found, where it was cut short, where several parts matter."""
    assert words in render_parts(parts_told(tables(effects, max_trials=max_trials)))
