"""What the page's templates are rendered with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args
from urllib.parse import quote

from markupsafe import escape

from ..blaming.findings import StopReason
from ..report.content import Change
from ..report.html import environment as report_environment
from ..report.shapes import side_by_side
from ..report.wording import duration, stopped
from ..spelling import at_least, counted, money, outcome_word, short, total_money, visible
from ..writeback.names import jaeger_url

if TYPE_CHECKING:
    from jinja2 import Environment

_DIFFS = 40
"""Changes of a step that a comparison shows."""
_MOST = 600_000
"""Bytes of a table that grows with what was recorded: a page is less than 1 MB."""
SAME = 500
"""Steps alike that can be seen in one of its rows."""
_Row = TypeVar("_Row")
_SAME_FROM = 3
"""So many steps alike in a row are folded."""


def folded(found: Any) -> list[dict[str, Any]]:
    """Return the rows of a comparison; several alike in a row are one that can be opened."""
    rows: list[dict[str, Any]] = []
    alike: list[Any] = []

    def close() -> None:
        if len(alike) >= _SAME_FROM:
            rows.append({"same": list(alike)})
        else:
            rows.extend({"step": one, "first": False} for one in alike)
        alike.clear()

    for index, one in enumerate(found.steps):
        if one.kind == "same":
            alike.append(one)
            continue
        close()
        rows.append({"step": one, "first": index == found.first})
    close()
    return rows


def with_changes(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of a comparison with what differs in it word by word, which only rows on the page need."""
    if "same" in row:
        return row
    changes = [
        (change, side_by_side(Change(step=0, label="", old=change.a, new=change.b)))
        for change in row["step"].changes[:_DIFFS]
    ]
    return row | {"changes": changes}


def fitting(rows: Iterable[_Row], texts: Callable[[_Row], Sequence[str]], *, around: int) -> list[_Row]:
    """Return as many of the first rows as a page has room for, one at least; `around` each text is more."""
    found: list[_Row] = []
    taken = 0
    for row in rows:
        for text in texts(row):
            taken += around + len(escape(visible(text)).encode("utf-8", "backslashreplace"))
        if found and taken > _MOST:
            break
        found.append(row)
    return found


def texts_of(row: dict[str, Any]) -> list[str]:
    """Return what a row of a comparison shows."""
    if "same" in row:
        return [short(one.what_a or "", 140) for one in row["same"][:SAME]]
    one = row["step"]
    found = ["", "", short(one.what_a or "", 160), short(one.what_b or "", 160)]
    for change, sides in row["changes"]:
        found += [change.path, change.path, *(piece.text for piece in (*sides.old, *sides.new))]
    return found


def last_words(found: Any) -> Any:
    """Return what both runs said last, their differing words marked."""
    return side_by_side(Change(step=0, label="", old=found.a.last_text, new=found.b.last_text))


@cache
def environment() -> Environment:
    """Return the environment of the page's templates."""
    made = report_environment("tracefork_backend.page")
    made.filters.update(
        short=short, money=money, ending=outcome_word, url=_quoted, took=_took, counted=counted, why=_why,
    )  # fmt: skip
    made.globals.update(SAME=SAME, at_least=at_least, total_money=total_money, jaeger_url=jaeger_url)
    return made


def _quoted(text: object) -> str:
    return quote(str(text), safe="")


def _why(state: str) -> str:
    """Return how an experiment stands, or why it ended, in words."""
    ended = state != "running" and state in get_args(StopReason)
    return stopped(cast("StopReason", state)) if ended else state


def _took(ms: float | None) -> str:
    return "" if ms is None else duration(ms)
