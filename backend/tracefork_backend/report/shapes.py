"""Where things stand in the pictures: geometry as plain data, drawn by the templates."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..blaming.modes import mode_found
from . import wording
from .content import Change, Report, TimelineStep
from .wording import Tone

WIDTH = 900
"""Of both pictures, in the SVG's own units."""
_LEFT = 150
_RIGHT = 190
_TIME_RIGHT = 74
_TOP = 34
_ROW = 30
_LANE = 18
_ROWS_MOST = 30
"""More steps than this do not each get a row."""
_BAR_LEAST = 3.0
"""An exchange of no length is still seen."""
_DIFF_MOST = 20_000
"""Characters of each side that are shown."""
_COMPARED_MOST = 600
"""Words or lines of each side that are compared one by one; on repetitive text time grows with the cube."""
_TICKS = 5
_SMALL = 200
_SMALL_EDGE = 6
"""Of the small picture of an interval: its width, and what is left free for the dot at either end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One step on the timeline, and the time of the tools after it."""

    step: TimelineStep
    x: float
    y: float
    width: float
    tool_width: float
    tone: Tone
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A mark on the horizontal axis."""

    x: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The picture of a run in time."""

    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    height: float
    row: float
    labelled: bool
    """Whether each step has a row of its own."""
    left: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One step's effect with its interval."""

    step: int
    y: float
    tone: Tone
    verdict: str
    x: float | None
    low: float | None
    high: float | None
    value: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """The picture of what was measured at each step."""

    rows: tuple[Row, ...]
    ticks: tuple[Tick, ...]
    zero: float
    height: float
    left: float
    right: float
    hidden: int
    """Steps without anything to say that got no row, for want of space."""
    axis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """One effect with its interval, in a table's cell."""

    width: float
    zero: float
    x: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text that both sides have, or only one."""

    text: str
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """A change, cut into what stayed and what did not."""

    old: tuple[Piece, ...]
    new: tuple[Piece, ...]
    left_out: int
    """Characters beyond what is shown, of the longer side."""


def timeline(report: Report) -> Timeline:
    """Place each step as a bar by time: in a row of its own, or in lanes where there are too many."""
    steps = report.timeline
    labelled = len(steps) <= _ROWS_MOST
    left = _LEFT if labelled else 20
    whole = max((s.started_ms + s.duration_ms + s.tool_ms for s in steps), default=0.0) or 1.0
    scale = (WIDTH - left - _TIME_RIGHT) / whole
    row = _ROW if labelled else _LANE
    lanes: list[float] = []
    bars: list[Bar] = []
    for step in steps:
        x = left + step.started_ms * scale
        width = max(_BAR_LEAST, step.duration_ms * scale)
        if labelled:
            lane = len(bars)
        else:
            # The lane that is free; overlapping calls stand below one another.
            lane = next((i for i, free in enumerate(lanes) if free <= x), len(lanes))
            lanes[lane : lane + 1] = [x + width]
        bars.append(
            Bar(
                step=step,
                x=x,
                y=_TOP + lane * row,
                width=width,
                tool_width=max(0.0, step.tool_ms * scale),
                tone=tone_of(report, step.step),
                title=f"step {step.step}: {step.label}, {wording.duration(step.duration_ms)}. {step.says}",
            )
        )
    count = len(bars) if labelled else len(lanes)
    ticks = tuple(
        Tick(x=left + whole * scale * i / _TICKS, text=wording.duration(whole * i / _TICKS))
        for i in range(_TICKS + 1)
    )
    return Timeline(
        bars=tuple(bars), ticks=ticks, height=_TOP + count * row + 14, row=row, labelled=labelled, left=left
    )


def tone_of(report: Report, step: int) -> Tone:
    """Return how loudly to show a step; quiet if nothing is known of it."""
    if step >= len(report.findings.effects):
        return "quiet"
    return wording.verdict(report.findings.effects[step], report.findings)[1]


def effects(report: Report) -> Effects:
    """Place each step in a row, or those with something to say where there are too many."""
    found = report.findings
    shown = list(found.effects)
    if len(shown) > _ROWS_MOST:
        said = set(found.ranking[:_ROWS_MOST]) | set(found.certified)
        shown = [effect for effect in shown if effect.step in said]
    mode = mode_found(found.mode)
    lows = [e.ci_low for e in shown if e.ci_low is not None]
    values = [e.effect for e in shown if e.effect is not None]
    lowest = min([*lows, *values, 0.0])
    edges = (-0.25, -0.5, -1.0) if mode.compares else (0.0,)
    start = next((edge for edge in edges if lowest >= edge), edges[-1])
    right = WIDTH - _RIGHT
    scale = (right - _LEFT) / (1.0 - start)

    def at(value: float) -> float:
        return _LEFT + (value - start) * scale

    rows: list[Row] = []
    for place, effect in enumerate(shown):
        words, tone = wording.verdict(effect, found)
        value = effect.effect if mode.compares else effect.flip_rate
        low, high = (effect.ci_low, effect.ci_high) if value is not None else (None, None)
        rows.append(
            Row(
                step=effect.step,
                y=_TOP + place * _ROW + _ROW / 2,
                tone=tone,
                verdict=words,
                x=None if value is None else at(value),
                low=None if low is None else at(low),
                high=None if high is None else at(high),
                value="" if value is None else f"{value:+.2f}",
                title=f"step {effect.step}: {effect.reason}",
            )
        )
    between = 0.25 if start >= -0.5 else 0.5
    marks = [start + between * i for i in range(round((1.0 - start) / between) + 1)]
    return Effects(
        rows=tuple(rows),
        ticks=tuple(Tick(x=at(mark), text=f"{mark:+.2f}" if mark else "0") for mark in marks),
        zero=at(0.0),
        height=_TOP + len(rows) * _ROW + 12,
        left=_LEFT,
        right=right,
        hidden=len(found.effects) - len(shown),
        axis=mode.words.axis,
    )


def interval(row: Mapping[str, Any]) -> Interval | None:
    """Place an effect and its interval in a small picture from -1 to 1; None where there is no interval."""
    if row["effect"] is None or row["ci_low"] is None or row["ci_high"] is None:
        return None
    x, low, high = (
        _SMALL / 2 * (1 + value) + _SMALL_EDGE for value in (row["effect"], row["ci_low"], row["ci_high"])
    )
    return Interval(width=_SMALL + 2 * _SMALL_EDGE, zero=_SMALL / 2 + _SMALL_EDGE, x=x, low=low, high=high)


def side_by_side(change: Change) -> SideBySide:
    """Return the old and the new text, their differing words marked."""
    old, new = _cut(change.old[:_DIFF_MOST], change.new[:_DIFF_MOST])
    longest = max(len(change.old), len(change.new))
    return SideBySide(old=old, new=new, left_out=max(0, longest - _DIFF_MOST))


def _cut(old: str, new: str) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """Cut both texts: by words if few lie between the first and last difference, else by lines."""
    for pattern in (r"\s*(?:\w+|[^\w\s])|\s+", r".*\n|.+"):
        a, b = (re.findall(pattern, text) for text in (old, new))
        head = _alike(a, b)
        tail = _alike(a[head:][::-1], b[head:][::-1])
        x, y = a[head : len(a) - tail], b[head : len(b) - tail]
        if max(len(x), len(y)) <= _COMPARED_MOST:
            break
        # Lines too many as well: what lies between is shown as changed.
    ops = [("replace", 0, len(x), 0, len(y))]
    if max(len(x), len(y)) <= _COMPARED_MOST:
        ops = difflib.SequenceMatcher(None, x, y, autojunk=False).get_opcodes()
    kept, rest = Piece("".join(a[:head]), False), Piece("".join(a[len(a) - tail :]), False)
    left = [Piece("".join(x[i:j]), tag != "equal") for tag, i, j, _, _ in ops]
    right = [Piece("".join(y[k:m]), tag != "equal") for tag, _, _, k, m in ops]
    return _filled([kept, *left, rest]), _filled([kept, *right, rest])


def _alike(a: list[str], b: list[str]) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _filled(pieces: list[Piece]) -> tuple[Piece, ...]:
    return tuple(piece for piece in pieces if piece.text)
