"""The report says what the findings say, escapes what came from outside, and loads nothing."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest
from reported import ANSWERS, booking, exchange
from tracefork_backend.blaming.findings import Effect, Findings, SetFinding, StopReason
from tracefork_backend.report import shapes, wording
from tracefork_backend.report.content import About, Change, Report, change_between, timeline
from tracefork_backend.report.html import render, write

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Response

EVIL = "</pre></svg></style><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}"


def pictures(page: str) -> list[ElementTree.Element]:
    """The SVGs of a page, each parsed."""
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


class Page(HTMLParser):
    """A page's text, and its tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the tag."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.words.append(data)

    @property
    def text(self) -> str:
        """The text with its white space run together."""
        return " ".join("".join(self.words).split())


def of(*effects: Effect, **found: object) -> Report:
    """Return a report of exactly these findings."""
    findings = Findings(**{"mode": "intervene", "effects": effects, "ranking": (), **found})  # type: ignore[arg-type]
    steps = tuple(exchange(step, *ANSWERS[step % 5]) for step in range(len(effects)))
    return Report(
        run_id="ab" * 16,
        name="run",
        parent_failed=True,
        timeline=timeline(steps),
        findings=findings,
        about=About(),
    )


def effect(step: int, verdict: str = "screened_out", **more: object) -> Effect:
    """Return an effect with this verdict."""
    return Effect(**{"step": step, "verdict": verdict, "reason": "why", **more})  # type: ignore[arg-type]


def test_the_page_says_what_was_found() -> None:
    """Culprit, counts, interval, control, cost, forks and limits stand in the page as text."""
    report = booking()
    found = report.findings.effects[2]
    assert report.findings.certified == (2,)
    text = Page(render(report)).text
    for part in (
        "Changing step 2 saves this run.",
        f"{found.flips_treatment} of {found.n_treatment} forks",
        f"kept as it was, in {found.flips_control} of {found.n_control} forks",
        f"{found.effect:+.2f}, with a 95 % interval from {found.ci_low:+.2f} to {found.ci_high:+.2f}",
        f"{report.findings.trials}, {report.findings.controls} of them controls",
        "$0.22 of $2.00",
        "Root cause",
        "A step that is not blamed is not cleared.",
        "regex success=/BOOKED/",
    ):
        assert part in text, part


def test_a_sum_that_leaves_calls_out_is_marked() -> None:
    """The page says that forks cost no less than that, and how many calls have no price."""
    report = booking()
    text = Page(render(replace(report, about=replace(report.about, unpriced=1)))).text
    assert "≥ $0.22, 1 call without a price of $2.00" in text


def test_nothing_is_loaded_and_no_script_runs() -> None:
    """No tag fetches anything, none is a script, no style names an address, none handles an event."""
    text = render(booking())
    page = Page(text)
    assert page.tags
    for tag, attributes in page.tags:
        assert tag not in {
            "script",
            "link",
            "img",
            "iframe",
            "object",
            "embed",
            "image",
            "use",
            "base",
            "form",
        }
        assert not any(name == "src" or name == "href" or name.startswith("on") for name in attributes), tag
    assert "url(" not in text
    assert "@import" not in text


def test_the_policy_forbids_everything_but_inline_styles() -> None:
    """The page's own policy would stop what slipped through."""
    policies = [
        attributes["content"]
        for tag, attributes in Page(render(booking())).tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"]


def test_text_from_outside_stays_text() -> None:
    """Markup in every field that a user, model or server fills makes no tag, and is shown as it stands."""
    clean = booking()
    wild = replace(
        clean,
        name=EVIL,
        timeline=tuple(replace(step, label=EVIL, says=EVIL, tools=(EVIL,)) for step in clean.timeline),
        findings=replace(
            clean.findings,
            effects=tuple(replace(each, reason=EVIL) for each in clean.findings.effects),
            message=EVIL,
            sets=(
                SetFinding(
                    steps=(0, 1),
                    kind="and",
                    verdict="inconclusive",
                    reason=EVIL,
                    flip_rate=0.5,
                    log_e_min=None,
                    n_trials=4,
                ),
            ),
        ),
        about=About(experiment_id=EVIL, intervention=EVIL, oracle=EVIL, oracle_note=EVIL, when=EVIL),
        change=Change(step=2, label=EVIL, old=EVIL, new=EVIL + " more", flipped_run_id="0f" * 16),
    )
    text = render(wild)
    page = Page(text)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "img"})
    assert page.text.count("{{ 7*7 }}") >= 12
    assert "49" not in re.findall(r"\b49\b", page.text)
    assert len(pictures(text)) == 2


def test_the_change_is_marked_where_it_is() -> None:
    """Only the day differs between the two tool calls, so only the day is marked, in each column."""
    change = booking().change
    assert change is not None
    cut = shapes.side_by_side(change)
    assert [piece.text for piece in cut.old if piece.changed] == ["04"]
    assert [piece.text for piece in cut.new if piece.changed] == ["03"]
    assert "".join(piece.text for piece in cut.old) == change.old
    assert "".join(piece.text for piece in cut.new) == change.new
    assert change.flipped_run_id == "0f" * 16


def test_a_changed_request_is_shown_with_its_answer() -> None:
    """Where what was asked differs, both requests stand before both answers."""
    before = exchange(0, *ANSWERS[0])
    asked = replace(before.request, body=b'{"model":"other"}')
    change = change_between(
        before, replace(before, request=asked, intervention="request model=other"), step=0
    )
    assert change.old.startswith('request: {"model":"claude-sonnet-5"')
    assert change.new.startswith('request: {"model":"other"}')


def test_a_huge_answer_is_cut_and_counted() -> None:
    """Megabytes of text neither stall the page nor swell it, and the reader is told."""
    change = Change(step=2, label="text", old="a b " * 300_000, new="c d " * 300_000)
    text = render(replace(booking(), change=change))
    assert len(text) < 300_000
    assert "1180000 more characters are not shown" in text


def test_an_error_answer_and_a_broken_exchange_are_named() -> None:
    """A step that failed says how instead of what it said."""
    refused = exchange(0, "", None, {}, response=Response(status=529, body=b'{"type":"error"}'))
    broken = exchange(1, "", None, {}, response=None, outcome="no_response")
    bars = timeline((refused, broken))
    assert [(bar.failed, bar.says) for bar in bars] == [(True, "status 529, complete"), (True, "no_response")]


def test_tools_fill_the_time_between_calls() -> None:
    """The gap after an answer that asked for tools is the tools'; the last answer asked for none."""
    bars = timeline(tuple(exchange(step, *ANSWERS[step]) for step in range(5)))
    assert [bar.tools for bar in bars] == [
        ("search_flights",),
        ("check_seats",),
        ("check_seats",),
        ("book",),
        (),
    ]
    assert bars[0].tool_ms == pytest.approx(1000)
    assert bars[4].tool_ms == 0


def test_concurrent_steps_get_lanes_of_their_own() -> None:
    """With too many steps for a row each, those that overlap in time do not cover one another."""
    steps = tuple(
        exchange(step, *ANSWERS[4], started_ns=step // 3 * 10**9, ended_ns=(step // 3 * 10 + 9) * 10**8)
        for step in range(60)
    )
    report = of(*(effect(step) for step in range(60)))
    picture = shapes.timeline(replace(report, timeline=timeline(steps)))
    assert not picture.labelled
    assert len({bar.y for bar in picture.bars}) == 3
    placed = sorted((bar.y, bar.x, bar.x + bar.width) for bar in picture.bars)
    for (y, _, end), (other, start, _) in itertools.pairwise(placed):
        assert y != other or start >= end


def test_points_stand_where_the_axis_says() -> None:
    """A dot at 0.5 is halfway from the zero line to 1, and its interval's ends are where they belong."""
    picture = shapes.effects(of(effect(0, effect=0.5, ci_low=-0.2, ci_high=0.75, ci_kind="betting")))
    row = picture.rows[0]
    assert row.x == pytest.approx((picture.zero + picture.right) / 2)
    assert row.low is not None
    assert row.high is not None
    assert row.x is not None
    assert picture.left < row.low < picture.zero < row.x < row.high < picture.right
    assert [tick.text for tick in picture.ticks] == ["-0.25", "0", "+0.25", "+0.50", "+0.75", "+1.00"]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"stop_reason": "systematic"}, "No single step lost this run"),
        ({"stop_reason": "unstable"}, "was luck"),
        ({"stop_reason": "aborted"}, "Nothing could be found out"),
        ({"stop_reason": "none_found"}, "No step was shown to matter"),
        ({"stop_reason": "budget", "ranking": (1,)}, "Step 1 is the likeliest, but that is not proven."),
    ],
)
def test_no_verdict_is_said_as_plainly_as_one(found: dict[str, object], words: str) -> None:
    """An experiment that certified nothing blames nobody in its headline, whatever ended it."""
    report = of(effect(0), effect(1, "inconclusive"), **found)
    assert words in wording.headline(report)
    assert "saves this run." not in Page(render(report)).text
    assert not report.blamed


@pytest.mark.parametrize("reason", get_args(StopReason))
def test_whatever_ended_it_is_said_in_words(reason: StopReason) -> None:
    """A reason to stop without its words would end the report in an error."""
    assert wording.stopped(reason)


def test_steps_that_act_together_are_named_together() -> None:
    """A certified pair is the headline, and each member says with whom it matters."""
    pair = SetFinding(
        steps=(0, 2), kind="and", verdict="certified", reason="", flip_rate=0.9, log_e_min=5.0, n_trials=20
    )
    report = of(effect(0), effect(1), effect(2), sets=(pair,), ranking=(0, 2), stop_reason="certified")
    assert wording.headline(report) == "Steps 0 and 2 together decided this run."
    assert wording.verdict(report.findings.effects[0], report.findings) == (
        "Matters together with 2",
        "cause",
    )
    assert "not in all combinations" in render(report)


def test_ungraded_forks_are_not_passed_over() -> None:
    """Trials without an outcome are counted, kept out of the rate, and bound the effect."""
    some = effect(
        0,
        "inconclusive",
        effect=0.6,
        ci_low=0.1,
        ci_high=0.9,
        ci_kind="betting",
        n_treatment=10,
        flips_treatment=5,
        undefined_treatment=3,
        bound_low=0.2,
        bound_high=0.8,
    )
    text = Page(render(of(some, ranking=(0,)))).text
    assert "5 of 7 forks" in text
    assert (
        "3 forks could not be graded. Whatever they would have been, the effect lies between +0.20 and +0.80"
        in text
    )


def test_a_deterministic_agent_gets_no_false_precision() -> None:
    """One fork is one observation: the page says so and shows no interval in words."""
    sure = effect(0, "certified", is_root=True, effect=1.0, ci_low=1.0, ci_high=1.0, ci_kind="deterministic")
    text = Page(render(of(sure, ranking=(0,), deterministic=True, stop_reason="certified"))).text
    assert "The agent is deterministic" in text
    assert "% interval" not in text


def test_flip_rates_without_controls_are_labelled_so() -> None:
    """Fixed mode blames nobody, and says in three places that it has no control."""
    report = booking(mode="fixed")
    text = Page(render(report)).text
    assert not report.blamed
    assert "There is no control to compare with." in text
    assert "There was no control" in text
    assert "cannot tell a cause from an agent that is merely unsteady" in text


def test_pictures_are_whole() -> None:
    """Both SVGs parse, and draw each step."""
    for picture in pictures(render(booking())):
        assert picture.tag.endswith("svg")
        assert len(picture.findall(".//{*}title")) == 5


def test_the_file_is_whole_or_not_there(tmp_path: Path) -> None:
    """A report replaces the one before; one that cannot be written is an error that names the file."""
    path = tmp_path / "report.html"
    path.write_text("old")
    assert write(render(booking()), path) == path
    assert path.read_text().startswith("<!doctype html>")
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(UsageError, match=r"no/such/report\.html"):
        write(render(booking()), tmp_path / "no" / "such" / "report.html")
