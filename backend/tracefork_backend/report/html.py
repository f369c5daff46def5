"""The report as one self-contained HTML page."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tracefork_otel.errors import UsageError
from tracefork_otel.files import write_whole

from ..blaming.modes import mode_found
from ..spelling import run_name
from . import shapes, wording
from .content import Report

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def _environment() -> Environment:
    # Imported here: commands that write no report should not pay for it.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("tracefork_backend.report"),
        # Whatever a template is called: every value came from outside.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(dollars=wording.dollars, duration=wording.duration, run=run_name)
    return made


def render(report: Report) -> str:
    """Return the page: it loads nothing, runs no script, and everything from outside is escaped."""
    culprit = report.culprit
    found = report.findings
    effect = found.effects[culprit] if culprit is not None else None
    mode = mode_found(found.mode)
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            found=found,
            mode=mode,
            chart=mode.words.chart.format(treated=mode.words.treated),
            about=report.about,
            headline=wording.headline(report),
            explanation=wording.explanation(report),
            certainty=wording.certainty(report, effect) if effect else (),
            culprit=culprit,
            change=report.change,
            diff=shapes.side_by_side(report.change) if report.change else None,
            timeline=shapes.timeline(report),
            effects=shapes.effects(report),
            rows=[(each, *wording.verdict(each, found)) for each in found.effects],
            not_guaranteed=wording.not_guaranteed(found),
            stopped=wording.stopped(found),
            width=shapes.WIDTH,
        )
    )


def write(report: Report, path: Path) -> Path:
    """Write the page into the file, whole or not at all; UsageError if it cannot be written."""
    text = render(report).encode()
    try:
        write_whole(path, text)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise UsageError(
            f"the report cannot be written to {path}: {why}; name a file in a folder that exists"
        ) from error
    return path
