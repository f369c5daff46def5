"""Verdicts and figures in words that need no statistics to be read."""

from __future__ import annotations

from typing import Literal

from ..blaming.findings import Effect, Findings, StopReason
from ..blaming.modes import mode_found
from ..spelling import counted, money
from .content import Report

Tone = Literal["cause", "open", "clear", "quiet"]

_MOST_EVIDENCE = 1_000_000
"""Larger odds say no more to anybody."""


def headline(report: Report) -> str:
    """Return the finding in one short sentence."""
    found, culprit = report.findings, report.culprit
    if report.blamed and culprit is not None:
        joint = _joint(found, culprit)
        if joint:
            return f"Steps {_listed(joint)} together decided this run."
        words = mode_found(found.mode).words
        return (words.lost if report.parent_failed else words.won).format(step=culprit)
    match found.stop_reason:
        case "systematic" if found.deterministic:
            return "Redone, this run always comes out the same: only a change can tell which step matters."
        case "systematic":
            return "No single step lost this run: it fails however often it is redone."
        case "unstable":
            return "This run's ending was luck: doing it again often ends differently."
        case "aborted":
            return "Nothing could be found out: no fork could be graded."
        case _ if culprit is None:
            return "No step was shown to matter."
        case _:
            return f"Step {culprit} is the likeliest, but that is not proven."


def explanation(report: Report) -> str:
    """Return what was counted, in one or two sentences."""
    found, culprit = report.findings, report.culprit
    if culprit is None or _joint(found, culprit):
        return sentence(found.message)
    effect = found.effects[culprit]
    parts: list[str] = []
    if effect.n_treatment:
        how = mode_found(found.mode).words.treated_fully
        flips = _of(effect.flips_treatment, graded(effect))
        parts.append(f"With step {culprit} {how}, the run ended differently in {flips}")
    if effect.n_control:
        n = effect.n_control - effect.undefined_control
        parts.append(f"with it kept as it was, in {_of(effect.flips_control, n)}")
    others = tuple(step for step in found.certified if step != culprit) if report.blamed else ()
    too = (
        f" Step{'s' * (len(others) > 1)} {_listed(others)} matter{'s' * (len(others) == 1)} too."
        if others
        else ""
    )
    return (sentence("; ".join(parts)) if parts else sentence(found.message)) + too


def graded(effect: Effect) -> int:
    """Return how many treated forks could be graded."""
    return effect.n_treatment - effect.undefined_treatment


def certainty(report: Report, effect: Effect) -> tuple[str, ...]:
    """Return how sure the finding about a step is and why, a sentence each."""
    lines: list[str] = []
    if effect.ci_kind == "deterministic":
        lines.append(
            "The agent is deterministic: unchanged re-runs came out byte for byte alike, so one fork stands "
            "for all. There is no interval to show."
        )
    elif effect.ci_kind == "wilson":
        lines.append(
            "There was no control: nobody knows how often the run changes by itself. Treat this as a hint."
        )
    elif effect.ci_low is not None and effect.ci_high is not None and effect.effect is not None:
        level = 100 * (1 - report.about.alpha)
        lines.append(
            f"The effect is {effect.effect:+.2f}, with a {level:.0f} % interval from {effect.ci_low:+.2f} to "
            f"{effect.ci_high:+.2f}, over {effect.pairs} pairs of forks. It is valid whenever one looks."
        )
    if effect.e_value is not None and effect.e_value > 1:
        odds = min(_MOST_EVIDENCE, int(effect.e_value))
        lines.append(
            f"For a step without effect, evidence this strong would turn up at most once in {odds:,} times."
        )
    if effect.q_value is not None:
        lines.append(
            f"Counting that {len(report.findings.effects)} steps were looked at, q = {effect.q_value:.3g}; "
            f"at most {report.about.alpha:g} certifies."
        )
    undefined = effect.undefined_treatment + effect.undefined_control
    if undefined and effect.bound_low is not None and effect.bound_high is not None:
        lines.append(
            f"{undefined} forks could not be graded. Whatever they would have been, the effect lies between "
            f"{effect.bound_low:+.2f} and {effect.bound_high:+.2f}."
        )
    return tuple(lines)


def verdict(effect: Effect, found: Findings) -> tuple[str, Tone]:
    """Return what a step's verdict means, and how loudly to say it."""
    joint = _joint(found, effect.step)
    if effect.verdict == "certified" and effect.is_root:
        return "Root cause", "cause"
    if effect.echo_of is not None:
        return f"Follows from step {effect.echo_of}", "open"
    if effect.verdict == "certified":
        return "Shown to matter", "cause"
    if joint:
        others = tuple(step for step in joint if step != effect.step)
        return f"Matters together with {_listed(others)}", "cause"
    return {
        "minor": ("Small influence", "open"),
        "inconclusive": (mode_found(found.mode).words.unsettled, "open"),
        "screened_out": ("No sign of a large effect", "clear"),
        "untested": ("Not tested", "quiet"),
        "not_intervenable": ("Could not be changed", "quiet"),
        "output": ("The answer itself", "quiet"),
    }[effect.verdict]  # type: ignore[return-value]


def not_guaranteed(found: Findings) -> tuple[str, ...]:
    """Return what nobody should read into the page."""
    lines = [
        "A step that is not blamed is not cleared. The search finds large effects; small ones, and steps "
        "that cancel each other out, it may miss.",
        "The finding is about the change that was tried, with the models and tools as they were on that day. "
        "Another change can do more, or less.",
        "Root and echo are labels that help to read the result; the error bound does not cover them.",
        *mode_found(found.mode).words.cautions,
    ]
    if found.sets:
        lines.append(
            "Steps that act together were searched for among the likely candidates, not in all combinations."
        )
    return tuple(lines)


def stopped(reason: StopReason) -> str:
    """Return why the experiment ended, in words."""
    return {
        "certified": "a cause was certified",
        "none_found": "everything was tried, and nothing certified",
        "budget": "the budget was used up",
        "max_trials": "as many forks were made as it was given",
        "systematic": "no redraw helps",
        "unstable": "the recorded ending is not the usual one",
        "aborted": "no fork could be graded",
        "fixed": "all forks asked for were made",
        "running": "it is not finished",
    }[reason]


def dollars(amount: float | None) -> str:
    """Return an amount as text; `unknown` without one."""
    return money(amount, cents_from=0.1) or "unknown"


def duration(ms: float) -> str:
    """Return a time as text, in the unit that fits."""
    if ms < 1000:
        return f"{ms:.0f} ms"
    return f"{ms / 1000:.1f} s" if ms < 120_000 else f"{ms / 60_000:.1f} min"


def _joint(found: Findings, step: int) -> tuple[int, ...]:
    return next((each.steps for each in found.sets if each.verdict == "certified" and step in each.steps), ())


def _listed(steps: tuple[int, ...]) -> str:
    names = [str(step) for step in steps]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _of(part: int, whole: int) -> str:
    return f"{part} of {counted(whole, 'fork')}"


def sentence(text: str) -> str:
    """Return the text as a sentence of its own."""
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else ""
