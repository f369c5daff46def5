"""Which views are exported, on which day a row of one stands, and what tells that a day has changed."""

from __future__ import annotations

from dataclasses import dataclass

from tracefork_otel.errors import UsageError

_NO_DAY = "date '1970-01-01'"
"""Of rows that nobody timed."""
_OF_RUN = "(select run_id, started_at as at from runs)"
_OF_EXPERIMENT = "(select experiment_id, created_at as at from blame_experiments)"
_BODIES = ("run_id", "step", "outcome", "request_sha256", "response_sha256")
"""Columns of `exchanges` in which whatever comes of bodies differs once a body does, without reading one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A view as it is exported: whole days of it at a time."""

    name: str
    at: str
    """When a row is of: a column of its own, or of what it belongs to."""
    of: str | None = None
    """What a row belongs to, and by which column."""
    key: str = "run_id"
    told_by: str | None = None
    """The view whose `columns` tell whether a day has changed; itself where it is read cheaply."""
    columns: tuple[str, ...] = ()
    asked_for: bool = False
    """Dear, and exported only where it is named."""

    @property
    def source(self) -> str:
        """The rows, each with its `day`, as a FROM clause."""
        return self._dated(self.name)

    @property
    def telling(self) -> str:
        """The rows that tell of changes, with `day`, as a FROM clause."""
        return self._dated(self.told_by or self.name)

    def _dated(self, view: str) -> str:
        day = f"coalesce(date_trunc('day', {self.at})::date, {_NO_DAY})"
        if self.of is None:
            return f"(select rows.*, {day} as day from {view} as rows)"
        joined = f"{view} as rows left join {self.of} as whole using ({self.key})"
        return f"(select rows.*, {day} as day from {joined})"


def _of_bodies(name: str, *, asked_for: bool = False) -> View:
    return View(
        name=name, at="whole.at", of=_OF_RUN, told_by="exchanges", columns=_BODIES, asked_for=asked_for
    )


def _of_experiment(name: str) -> View:
    return View(name=name, at="whole.at", of=_OF_EXPERIMENT, key="experiment_id")


VIEWS = {
    view.name: view
    for view in (
        View(name="runs", at="started_at"),
        View(name="exchanges", at="whole.at", of=_OF_RUN),
        _of_bodies("messages"),
        _of_bodies("bodies", asked_for=True),
        View(name="tools", at="whole.at", of=_OF_RUN),
        View(name="draws", at="whole.at", of=_OF_RUN, asked_for=True),
        View(name="spans", at="started_at"),
        View(name="forks", at="created_at"),
        View(name="blame_experiments", at="created_at"),
        _of_experiment("blame"),
        _of_experiment("blame_arms"),
        _of_experiment("blame_trials"),
        _of_experiment("blame_effects"),
        _of_experiment("blame_sets"),
        View(name="repairs", at="created_at"),
    )
}
"""Each view that can be exported, by its name."""


def chosen(names: str | None) -> tuple[View, ...]:
    """Return the views of these names, with commas between them; without any, all but the dear ones."""
    if names is None:
        return tuple(view for view in VIEWS.values() if not view.asked_for)
    given = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    for name in given:
        if name not in VIEWS:
            raise UsageError(f"{name} is no view that can be exported: there are {', '.join(VIEWS)}")
    if not given:
        raise UsageError(f"no view is named: there are {', '.join(VIEWS)}")
    return tuple(VIEWS[name] for name in given)
