"""A run, fork, comparison, experiment or receipt as a notebook shows it: self-contained, without a script."""

from __future__ import annotations

from functools import cache, singledispatch
from importlib import resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ..blaming.result import BlameResult, tables_of
from ..diffs.diff import Diff
from ..report import shapes, wording
from ..report.content import About, Report
from ..rerun.receipt import ReplayResult
from ..rerun.result import Fork
from ..store.store import Run, Step
from . import run as runs
from . import step as steps
from .templating import environment, folded, last_words, with_changes

if TYPE_CHECKING:
    pass

_STYLES = ("colours.css", "pictures.css")


@singledispatch
def html(value: object) -> str:
    """Return what a notebook shows of the value."""
    return _rendered("notebook_text.html", lines=(str(value),))


@html.register
def _(value: Run) -> str:
    told = runs.shown(value.store, value, step=0)
    return _rendered("notebook_run.html", told=told, run=value)


@html.register
def _(value: Step) -> str:
    pane = steps.shown(value.run.store, value.run, value.number, "conversation")
    return _rendered("notebook_step.html", pane=pane)


@html.register
def _(value: Fork) -> str:
    calls = f"{value.calls_replayed} served, {value.calls_live} live"
    lines = [f"changed: {value.intervention}", calls]
    if value.problem is not None:
        lines.append(f"problem: {value.problem}")
    lines += [f"note: {note}" for note in value.notes]
    return _rendered("notebook_fork.html", fork=value, lines=lines)


@html.register
def _(value: Diff) -> str:
    rows = [with_changes(row) for row in folded(value)]
    return _rendered("notebook_diff.html", found=value, rows=rows, ends=last_words(value))


@html.register
def _(value: BlameResult) -> str:
    report = Report(
        run_id=value.run_id,
        name="",
        parent_failed=value.plan.parent_failed,
        timeline=(),
        findings=value.findings,
        about=About(experiment_id=value.experiment_id),
    )
    return _rendered(
        "notebook_blame.html",
        headline=wording.headline(report),
        explanation=wording.explanation(report),
        effects=shapes.effects(report),
        width=shapes.WIDTH,
        tables=tables_of(value),
    )


@html.register
def _(value: ReplayResult) -> str:
    return _rendered("notebook_text.html", lines=value.receipt)


def _rendered(template: str, **values: Any) -> str:
    return environment().get_template(template).render({"style": _style()} | values)


@cache
def _style() -> Markup:
    """Return the style of all that a notebook shows; it holds below one class alone."""
    report = resources.files("tracefork_backend.report").joinpath("templates")
    shared = "\n".join(report.joinpath(one).read_text() for one in _STYLES)
    own = resources.files("tracefork_backend.page").joinpath("static", "notebook.css").read_text()
    # The report's colours are its root's; here they are those of a piece of somebody else's page.
    return Markup((shared.replace(":root", ".tracefork") + own).replace("svg ", ".tracefork svg "))
