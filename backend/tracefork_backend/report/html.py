"""The report as one self-contained HTML page."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracefork_otel.errors import UsageError
from tracefork_otel.files import write_whole

from ..blaming.modes import mode_found
from ..spelling import run_name, visible
from . import parts, shapes, wording
from .content import Report
from .parts import PartsTold

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(*packages: str) -> Environment:
    """Return an environment with the templates of these packages before the report's."""
    # Imported here: commands that write no report should not pay for it.
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=ChoiceLoader([PackageLoader(one) for one in (*packages, "tracefork_backend.report")]),
        # Whatever a template is called: every value came from outside.
        autoescape=True,
        finalize=_as_it_is,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(dollars=wording.dollars, duration=wording.duration, run=run_name)
    made.filters.update(sentence=wording.sentence, interval=shapes.interval)
    made.filters.update(name=parts.name, fails=parts.fails, tone=parts.tone)
    return made


def _as_it_is(value: object) -> object:
    """Return a text so that a browser shows all of it, and can be sent it."""
    if type(value) is not str:
        return value
    return visible(value).encode("utf-8", "backslashreplace").decode()


_environment = cache(environment)


def values_of(report: Report) -> dict[str, Any]:
    """Return what the report's templates ask for."""
    culprit = report.culprit
    found = report.findings
    effect = found.effects[culprit] if culprit is not None else None
    mode = mode_found(found.mode)
    return {
        "report": report,
        "run_id": report.run_id,
        "found": found,
        "mode": mode,
        "chart": mode.words.chart.format(treated=mode.words.treated),
        "about": report.about,
        "headline": wording.headline(report),
        "explanation": wording.explanation(report),
        "certainty": wording.certainty(report, effect) if effect else (),
        "culprit": culprit,
        "change": report.change,
        "diff": shapes.side_by_side(report.change) if report.change else None,
        "timeline": shapes.timeline(report),
        "effects": shapes.effects(report),
        "rows": [(each, *wording.verdict(each, found)) for each in found.effects],
        "not_guaranteed": wording.not_guaranteed(found),
        "stopped": wording.stopped(found.stop_reason),
        "width": shapes.WIDTH,
    }


def render(report: Report) -> str:
    """Return the page: it loads nothing, runs no script, and everything from outside is escaped."""
    return _environment().get_template("report.html").render(values_of(report))


def values_of_parts(told: PartsTold) -> dict[str, Any]:
    """Return what the templates of an experiment on parts of requests ask for."""
    found = told.tables.experiment
    tables = (
        (parts.CHANGES, "Effect on failure", parts.effect, told.sure),
        (parts.NONE_FOUND, "Bounded by", parts.bound, told.none),
        (parts.UNSETTLED, "Verdict", parts.verdict, told.rest),
    )
    return {
        "told": told,
        "run_id": found["run_id"],
        "found": found,
        "strata": told.plan["strata"],
        "unpriced": found["unpriced"] or found["unpriced_forks"],
        "headline": told.headline,
        "explanation": wording.sentence(found["message"]),
        "sections": [table for table in tables if table[-1]],
        "none_found": parts.NONE_FOUND,
        "stopped": wording.stopped(found["stop_reason"]),
    }


def render_parts(told: PartsTold) -> str:
    """Return the page of an experiment on parts of requests, as `render` has that of one on steps."""
    return _environment().get_template("parts.html").render(values_of_parts(told))


def write(page: str, path: Path) -> Path:
    """Write the page into the file, whole or not at all; UsageError if it cannot be written."""
    try:
        write_whole(path, page.encode())
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise UsageError(
            f"the report cannot be written to {path}: {why}; name a file in a folder that exists"
        ) from error
    return path
