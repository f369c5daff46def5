"""What the page does: forms, and the commands of ours that they start."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC

from starlette.requests import Request
from starlette.responses import Response

from tracefork_otel.errors import TraceforkError, UnknownRun, UsageError

from ..grading.offers import offers_for
from ..rerun.estimate import Estimate
from ..rerun.reconstruct import reconstruct
from ..spelling import counted, money, run_name
from . import changing, experiments
from .context import Page, number
from .jobs import Job

_AT_ONCE = 4
"""Forks of one form that run at a time."""


def fork_form(page: Page, request: Request) -> Response:
    """The form for a fork."""
    found, at = page.run(request), request.path_params["step"]
    offered = changing.offered(page.exchange(found, at), request.query_params.get("kind", ""))
    if offered.filled.kind == "tool_result" and not offered.filled.value:
        with suppress(UsageError):  # of the last step nothing follows
            offered = changing.with_result(offered, page.exchange(found, at + 1))
    return page.part("fork.html", found=found, at=at, offered=offered, filled=offered.filled)


def estimate(page: Page, request: Request, form: Mapping[str, str]) -> Response:
    """What the fork of the form would take."""
    found, at = page.run(request), request.path_params["step"]
    try:
        filled = changing.Filled.of(form)
        planned = changing.planned(reconstruct(page.store, found), at, filled)
    except UsageError as error:  # while it is being filled in that is no failure
        return page.part("problem.html", problem=str(error))
    return page.part(
        "estimate.html",
        planned=planned,
        filled=filled,
        why_not=page.why_not or _too_dear(page, planned),
    )


def fork(page: Page, request: Request, form: Mapping[str, str]) -> Response:
    """Start the forks of the form."""
    _check_allowed(page)
    found, at = page.run(request), request.path_params["step"]
    filled = changing.Filled.of(form)
    planned = changing.planned(reconstruct(page.store, found), at, filled)
    if why := _too_dear(page, planned):
        raise UsageError(why)
    # Not all that is left, where nothing is said: another fork may be asked for meanwhile.
    likely = min(page.ledger.left_usd, planned.worst_usd * filled.times + planned.call_usd)
    flags = ["--times", str(filled.times), "--tail", filled.tail]
    if filled.times > 1:
        flags += ["--jobs", str(min(_AT_ONCE, filled.times))]
    flags += _grading(form)
    job = page.jobs.fork(
        run_id=found.run_id,
        step=at,
        edit=filled.edit,
        flags=filled.flags,
        more=flags,
        budget_usd=likely if filled.budget_usd is None else filled.budget_usd,
        what=f"{counted(filled.times, 'fork')} of {run_name(found.run_id)}@{at}: {filled.edit.variant}",
    )
    return _to(f"/job/{job.id}")


def blame_form(page: Page, request: Request) -> Response:
    """The form for an experiment."""
    found = page.run(request)
    try:
        offered = [one for one in offers_for(found) if not one.startswith("--judge")]
    except TraceforkError:
        offered = []
    return page.whole("blame.html", found=found, offered=offered)


def blame(page: Page, request: Request, form: Mapping[str, str]) -> Response:
    """Start an experiment."""
    _check_allowed(page)
    found = page.run(request)
    grading = _grading(form)
    if not grading:
        raise UsageError("say what a success or a failure is: a pattern, a field, or the exit status")
    most = _most(form)
    budget = changing.Filled(budget=form.get("budget", "")).budget_usd
    job = page.jobs.blame(
        found.run_id,
        flags=[*grading, *([] if most is None else ["--max-trials", str(most)])],
        what=f"blame {run_name(found.run_id)}",
        budget_usd=_budget(page, budget),
    )
    return _to(f"/job/{job.id}")


def resume(page: Page, request: Request, form: Mapping[str, str]) -> Response:
    """Go on with an experiment."""
    _check_allowed(page)
    shown = experiments.shown(page.store, request.path_params["experiment"])
    more = changing.Filled(budget=form.get("budget", "")).budget_usd
    job = page.jobs.resume(
        shown.experiment_id,
        run_id=shown.run_ids[0],
        had_usd=experiments.booked_usd(page.store.path, shown.experiment_id),
        more_usd=_budget(page, more),
        max_trials=_most(form),
    )
    return _to(f"/job/{job.id}")


def stop(page: Page, request: Request, form: Mapping[str, str]) -> Response:
    """End a job."""
    job = _job(page, request)
    page.jobs.stop(job)
    return _to(f"/job/{job.id}")


def all_jobs(page: Page, request: Request) -> Response:
    """What was started from this page."""
    return page.whole("jobs.html", jobs=list(page.jobs))


def one_job(page: Page, request: Request) -> Response:
    """One of them, as far as it has come."""
    job = _job(page, request)
    job.experiment_id = experiment_id = job.experiment_id or _begun_by(page, job)
    forks = [page.store.run(one) for one in job.made if page.store.has_run(one)]
    return page.whole("job.html", job=job, experiment_id=experiment_id, forks=forks)


def _begun_by(page: Page, job: Job) -> str | None:
    """Return the experiment that a job began."""
    if job.words[1] != "blame":
        return None
    if isinstance(job.result, Mapping) and "experiment_id" in job.result:
        return str(job.result["experiment_id"])
    taken = {one.experiment_id for one in page.jobs}
    return next(
        (
            one.experiment_id
            for one in reversed(experiments.listed(page.store))
            if one.run_id == job.run_id and _since(one, job) and one.experiment_id not in taken
        ),
        None,
    )


def _job(page: Page, request: Request) -> Job:
    job = page.jobs.get(request.path_params["job"])
    if job is None:
        raise UnknownRun("this page started nothing of that name: what it starts is forgotten when it ends")
    return job


def _too_dear(page: Page, planned: Estimate) -> str | None:
    """Return why not even one such fork can be paid; None if one can."""
    left = page.ledger.left_usd
    if planned.cost_usd <= left:
        return None
    return (
        f"a fork is likely to take {money(planned.cost_usd)}, and this page may spend {money(left)} "
        f"more: it was started with --budget {page.ledger.budget_usd:g}"
    )


def _check_allowed(page: Page) -> None:
    if why := page.why_not:
        raise UsageError(why)


def _budget(page: Page, asked: float | None) -> float:
    return page.ledger.left_usd if asked is None else asked


def _most(form: Mapping[str, str]) -> int | None:
    """Return how many forks an experiment may make; None where nothing is said."""
    asked = form.get("max_trials", "").strip()
    return number(asked, "max_trials") if asked else None


def _grading(form: Mapping[str, str]) -> list[str]:
    """Return the flags that say what a success is; a value that begins with a dash stays a value."""
    flags = [
        f"--{name.replace('_', '-')}={form[name]}"
        for name in ("success_re", "failure_re", "field", "judge_model")
        if form.get(name, "").strip()
    ]
    if rubric := form.get("judge", "").strip():
        # To a command `@` means a file, which a model would be shown.
        flags.append(f"--judge={'@' if rubric.startswith('@') else ''}{rubric}")
    return [*flags, "--exit-code"] if form.get("exit_code") else flags


def _since(one: experiments.Experiment, job: Job) -> bool:
    return one.begun.replace(tzinfo=UTC).timestamp() >= job.started - 1


def _to(where: str) -> Response:
    """Send the browser there."""
    return Response(status_code=200, headers={"hx-redirect": where}, media_type="text/html")


GET = {
    "/run/{run}/step/{step:int}/fork": fork_form,
    "/run/{run}/blame": blame_form,
    "/jobs": all_jobs,
    "/job/{job}": one_job,
}
POST = {
    "/run/{run}/step/{step:int}/estimate": estimate,
    "/run/{run}/step/{step:int}/fork": fork,
    "/run/{run}/blame": blame,
    "/blame/{experiment}/resume": resume,
    "/job/{job}/stop": stop,
}
