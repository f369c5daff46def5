"""The pages and what each is asked with; whoever asks has passed the guard already."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl, quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from tracefork_otel.errors import StoreError, TraceforkError, UnknownRun, UsageError

from ..diffs.diff import diff
from ..grading.graded import graded_run
from ..grading.offers import offers
from ..rerun.estimate import Estimate
from ..rerun.reconstruct import reconstruct
from ..spelling import counted, money, run_name
from ..statistics.intervals import wilson
from ..store import Run, Store
from ..store import doctor as examine
from . import changing, experiments, run, runs, step
from .jobs import Job, Jobs
from .permits import Ledger, Permits
from .templating import environment, folded, last_words

if TYPE_CHECKING:
    pass

_PACKAGE = "tracefork_backend.page"
Handler: TypeAlias = Callable[[Request], Response]
_STATIC = {
    "htmx.min.js": "text/javascript",
    "keys.js": "text/javascript",
    "page.css": "text/css",
    "icon.svg": "image/svg+xml",
}
_ROWS = 1_000
"""Rows of an answer in SQL that a page shows."""
_SECONDS = 60.0
"""So long a question in SQL may take."""
_QUERY = 20_000
_FORM = 32 * 1024 * 1024
"""Bytes of a filled form: a prompt of a few megabytes fits."""
_DIFFS = 40
"""Changes of a step that a comparison shows."""
_SAME_FROM = 3
"""So many steps alike in a row are folded."""
_QUESTION = re.compile(r"^-- (?P<title>.+)\n(?P<query>[^-][\s\S]*?)(?=^-- |\Z)", re.MULTILINE)


class Page:
    """One store in a browser."""

    def __init__(self, store: Store, permits: Permits) -> None:
        self.store = store
        self.permits = permits
        self.ledger = Ledger(permits.budget_usd)
        self.jobs = Jobs(store.path, self.ledger)

    @property
    def app(self) -> Starlette:
        """The application."""
        get: dict[str, Handler] = {
            "/": self.runs,
            "/run/{run}": self.run,
            "/run/{run}/step/{step:int}": self.step,
            "/run/{run}/step/{step:int}/message/{place:int}": self.message,
            "/run/{run}/step/{step:int}/text/{tab}": self.text,
            "/run/{run}/step/{step:int}/picture/{place:int}": self.picture,
            "/run/{run}/step/{step:int}/raw/{side}": self.raw,
            "/run/{run}/step/{step:int}/fork": self.fork_form,
            "/run/{run}/tree": self.tree,
            "/run/{run}/blame": self.blame_form,
            "/diff/{a}/{b}": self.diff,
            "/diff": self.compare,
            "/blame": self.experiments,
            "/blame/{experiment}": self.experiment,
            "/matrix": self.matrix,
            "/jobs": self.all_jobs,
            "/job/{job}": self.job,
            "/sql": self.sql,
            "/sql.csv": self.csv,
            "/doctor": self.doctor,
            "/static/{name}": self.static,
        }
        post: dict[str, Callable[[Request, Mapping[str, str]], Response]] = {
            "/run/{run}/step/{step:int}/estimate": self.estimate,
            "/run/{run}/step/{step:int}/fork": self.fork,
            "/run/{run}/blame": self.blame,
            "/blame/{experiment}/resume": self.resume,
            "/job/{job}/stop": self.stop,
        }
        return Starlette(
            routes=[
                *(Route(path, one, methods=["GET"]) for path, one in get.items()),
                *(Route(path, _with_form(one), methods=["POST"]) for path, one in post.items()),
            ],
            exception_handlers={
                TraceforkError: self._failed,
                404: self._nothing_here,
                405: self._nothing_here,
            },
        )

    # What is shown

    def runs(self, request: Request) -> Response:
        """The list."""
        asked = runs.Asked.of(request.query_params)
        found = runs.listed(self.store, asked)
        return self._page(
            "runs.html",
            asked=asked,
            found=found,
            kinds=runs.KINDS,
            statuses=runs.STATUSES,
            outcomes=runs.OUTCOMES,
        )

    def run(self, request: Request) -> Response:
        """One run, and a step of it beside."""
        found = self._run(request)
        at = _number(request.query_params.get("step"), "step")
        told = run.shown(self.store, found, step=at)
        pane = None
        if told.steps:
            at = min(at, told.steps - 1)
            pane = step.shown(self.store, found, at, request.query_params.get("tab", step.TABS[0]))
        return self._page("run.html", told=told, at=at, pane=pane, tabs=step.TABS)

    def step(self, request: Request) -> Response:
        """The step pane alone."""
        found, at = self._run(request), request.path_params["step"]
        pane = step.shown(self.store, found, at, request.query_params.get("tab", step.TABS[0]))
        return self._part("step.html", pane=pane, tabs=step.TABS)

    def message(self, request: Request) -> Response:
        """The next piece of a long message."""
        messages = step.messages_of(self.store, self._run(request), request.path_params["step"])
        place = request.path_params["place"]
        if place >= len(messages):
            raise UsageError(f"this step has {counted(len(messages), 'message')}, none with number {place}")
        begin = _number(request.query_params.get("from"), "from")
        text, left = step.cut(messages[place].content, begin, step.PIECE)
        where = f"/run/{request.path_params['run']}/step/{request.path_params['step']}/message/{place}"
        return self._part("more.html", text=text, left=left, where=where, begin=begin + len(text))

    def text(self, request: Request) -> Response:
        """The next piece of a long body."""
        found, at, tab = self._run(request), request.path_params["step"], request.path_params["tab"]
        exchange = self._exchange(found, at)
        begin = _number(request.query_params.get("from"), "from")
        text, left = step.cut(step.body_text(exchange, response=tab != "request"), begin, step.PIECE)
        where = f"/run/{found.run_id}/step/{at}/text/{tab}"
        return self._part("more.html", text=text, left=left, where=where, begin=begin + len(text))

    def picture(self, request: Request) -> Response:
        """A picture of the conversation, from the recorded bytes."""
        messages = step.messages_of(self.store, self._run(request), request.path_params["step"])
        place = request.path_params["place"]
        found = step.picture_of(messages[place]) if place < len(messages) else None
        if found is None:
            raise UsageError("there is no picture")
        kind, data = found
        return Response(data, media_type=kind)

    def raw(self, request: Request) -> Response:
        """A body byte for byte, or the request as a curl command, as a file."""
        found, at, side = self._run(request), request.path_params["step"], request.path_params["side"]
        exchange = self._exchange(found, at)
        match side:
            case "request":
                data, ending = exchange.request.body, "bin"
            case "response":
                data, ending = exchange.response.body if exchange.response else b"", "bin"
            case "curl":
                data, ending = (step.curl(exchange) + "\n").encode("utf-8", "backslashreplace"), "sh"
            case _:
                raise UsageError(f"{side}: ask for request, response or curl")
        name = f"{run_name(found.run_id)}-{at}-{side}.{ending}"
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(data, media_type="application/octet-stream", headers=headers)

    def tree(self, request: Request) -> Response:
        """A run with its forks, and theirs."""
        found = self._run(request)
        top, seen = found, {found.run_id}
        while top.parent_run_id is not None and top.parent_run_id not in seen:
            seen.add(top.parent_run_id)
            try:
                top = self.store.run(top.parent_run_id)
            except UnknownRun:
                break
        below: dict[str, list[dict[str, Any]]] = {}
        for row in self.store.ask("forks_below", run_id=top.run_id):
            below.setdefault(row["parent_run_id"], []).append(row)
        return self._page("tree.html", found=found, top=top, lines=_lines(below, top.run_id))

    def compare(self, request: Request) -> Response:
        """Two runs that were marked in the list."""
        marked = request.query_params.getlist("run")
        if len(marked) != 2:
            raise UsageError(f"{counted(len(marked), 'run')} marked: mark two of the list to compare them")
        where = f"/diff/{quote(marked[1], safe='')}/{quote(marked[0], safe='')}"
        return Response(status_code=303, headers={"location": where})

    def diff(self, request: Request) -> Response:
        """Two runs beside each other."""
        a, b = (self.store.run(request.path_params[name]) for name in "ab")
        found = diff(a, b)
        return self._page("diff.html", found=found, rows=folded(found), sides=(a, b), ends=last_words(found))

    def experiments(self, request: Request) -> Response:
        """All experiments."""
        return self._page("experiments.html", found=experiments.listed(self.store))

    def experiment(self, request: Request) -> Response:
        """One experiment, also while it runs."""
        shown = experiments.shown(self.store, request.path_params["experiment"])
        job = next(
            (one for one in self.jobs.running() if one.experiment_id == shown.experiment_id
             or (one.experiment_id is None and one.words[1] == "blame" and one.run_id in shown.run_ids)),
            None,
        )  # fmt: skip
        return self._page("experiment.html", shown=shown, job=job, **shown.values)

    def matrix(self, request: Request) -> Response:
        """What came of forks, by run, step and change."""
        ref = request.query_params.get("run")
        found = self.store.run(ref) if ref else None
        run_id = None if found is None else found.run_id
        rows = self.store.ask("cells_of_forks", run_id=run_id, limit=500)
        for row in rows:
            graded = row["passed"] + row["failed"]
            row["rate"] = row["passed"] / graded if graded else None
            row["interval"] = wilson(row["passed"], graded) if graded else None
        return self._page("matrix.html", rows=rows, found=found)

    def sql(self, request: Request) -> Response:
        """A question in SQL, and its answer."""
        query = request.query_params.get("q", "")
        answer, problem = None, None
        if query.strip():
            try:
                answer = self._answered(query)
            except (UsageError, StoreError) as error:
                problem = str(error)
        rows = [] if answer is None else answer.rows[:_ROWS]
        return self._page(
            "sql.html", query=query, answer=answer, rows=rows, problem=problem, questions=questions(),
            status=400 if problem else 200,
        )  # fmt: skip

    def csv(self, request: Request) -> Response:
        """The whole answer as a file."""
        answer = self._answered(request.query_params.get("q", ""))
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(answer.columns)
        writer.writerows(answer.rows)
        headers = {"content-disposition": 'attachment; filename="answer.csv"'}
        return Response(
            out.getvalue().encode("utf-8", "backslashreplace"), media_type="text/csv", headers=headers
        )

    def _answered(self, query: str) -> Any:
        if len(query) > _QUERY:
            raise UsageError(f"the question is longer than {_QUERY:,} characters")
        self.store.current()
        return self.store.answer(query, seconds=_SECONDS)

    def doctor(self, request: Request) -> Response:
        """What the doctor says."""
        report = examine(self.store.path)
        return self._page("doctor.html", report=report, lines=report.lines())

    def static(self, request: Request) -> Response:
        """A file of the page's own."""
        name = request.path_params["name"]
        if name not in _STATIC:
            return self._nothing_here(request, KeyError(name))
        return Response(_own_file(name), media_type=_STATIC[name])

    # What acts

    def fork_form(self, request: Request) -> Response:
        """The form for a fork."""
        found, at = self._run(request), request.path_params["step"]
        offered = changing.offered(self._exchange(found, at), request.query_params.get("kind", ""))
        if offered.filled.kind == "tool_result" and not offered.filled.value:
            offered = changing.with_result(offered, self._following(found, at))
        return self._part("fork.html", found=found, at=at, offered=offered, filled=offered.filled)

    def estimate(self, request: Request, form: Mapping[str, str]) -> Response:
        """What the fork of the form would take."""
        found, at = self._run(request), request.path_params["step"]
        try:
            filled = changing.Filled.of(form)
            planned = changing.planned(reconstruct(self.store, found), at, filled)
        except UsageError as error:  # while it is being filled in that is no failure
            return self._part("problem.html", problem=str(error))
        return self._part(
            "estimate.html",
            planned=planned,
            filled=filled,
            why_not=self._why_not() or self._too_dear(planned),
        )

    def fork(self, request: Request, form: Mapping[str, str]) -> Response:
        """Start the forks of the form."""
        self._check_allowed()
        found, at = self._run(request), request.path_params["step"]
        filled = changing.Filled.of(form)
        planned = changing.planned(reconstruct(self.store, found), at, filled)
        if why := self._too_dear(planned):
            raise UsageError(why)
        # Not all that is left, where nothing is said: another fork may be asked for meanwhile.
        likely = min(self.ledger.left_usd, planned.worst_usd * filled.times + planned.call_usd)
        flags = ["--times", str(filled.times), "--tail", filled.tail]
        if filled.times > 1:
            flags += ["--jobs", str(min(4, filled.times))]
        flags += _grading(form)
        job = self.jobs.fork(
            run_id=found.run_id,
            step=at,
            edit=filled.edit,
            flags=filled.flags,
            more=flags,
            budget_usd=likely if filled.budget_usd is None else filled.budget_usd,
            what=f"{counted(filled.times, 'fork')} of {run_name(found.run_id)}@{at}: {filled.edit.variant}",
        )
        return _to(f"/job/{job.id}")

    def blame_form(self, request: Request) -> Response:
        """The form for an experiment."""
        found = self._run(request)
        try:
            offered = [one for one in offers(graded_run(found)) if not one.startswith("--judge")]
        except TraceforkError:
            offered = []
        return self._page("blame.html", found=found, offered=offered)

    def blame(self, request: Request, form: Mapping[str, str]) -> Response:
        """Start an experiment."""
        self._check_allowed()
        found = self._run(request)
        grading = _grading(form)
        if not grading:
            raise UsageError("say what a success or a failure is: a pattern, a field, or the exit status")
        words = ["blame", "run", found.run_id, *grading]
        if form.get("max_trials", "").strip():
            words += ["--max-trials", str(_number(form["max_trials"], "max_trials"))]
        budget = changing.Filled(budget=form.get("budget", "")).budget_usd
        job = self.jobs.verb(
            words,
            run_id=found.run_id,
            what=f"blame {run_name(found.run_id)}",
            budget_usd=self._budget(budget),
        )
        return _to(f"/job/{job.id}")

    def resume(self, request: Request, form: Mapping[str, str]) -> Response:
        """Go on with an experiment."""
        self._check_allowed()
        shown = experiments.shown(self.store, request.path_params["experiment"])
        more = changing.Filled(budget=form.get("budget", "")).budget_usd
        job = self.jobs.resume(
            shown.experiment_id,
            run_id=shown.run_ids[0],
            had_usd=experiments.booked_usd(self.store.path, shown.experiment_id),
            more_usd=self._budget(more),
            max_trials=_number(form["max_trials"], "max_trials")
            if form.get("max_trials", "").strip()
            else None,
        )
        return _to(f"/job/{job.id}")

    def stop(self, request: Request, form: Mapping[str, str]) -> Response:
        """End a job."""
        job = self._job(request)
        self.jobs.stop(job)
        return _to(f"/job/{job.id}")

    def all_jobs(self, request: Request) -> Response:
        """What was started from this page."""
        return self._page("jobs.html", jobs=list(self.jobs))

    def job(self, request: Request) -> Response:
        """One of them, as far as it has come."""
        job = self._job(request)
        job.experiment_id = experiment_id = job.experiment_id or self._begun_by(job)
        forks = [self.store.run(one) for one in job.made if self.store.has_run(one)]
        return self._page("job.html", job=job, experiment_id=experiment_id, forks=forks)

    # Small parts

    def _begun_by(self, job: Job) -> str | None:
        """Return the experiment that a job began."""
        if job.words[1] != "blame":
            return None
        if isinstance(job.result, Mapping) and "experiment_id" in job.result:
            return str(job.result["experiment_id"])
        taken = {one.experiment_id for one in self.jobs}
        return next(
            (
                one.experiment_id
                for one in reversed(experiments.listed(self.store))
                if one.run_id == job.run_id and _since(one, job) and one.experiment_id not in taken
            ),
            None,
        )

    def _run(self, request: Request) -> Run:
        return self.store.run(request.path_params["run"])

    def _exchange(self, found: Run, at: int) -> Any:
        rows = self.store.ask("steps_of_run", run_id=found.run_id)
        if at >= len(rows):
            raise UsageError(f"run {run_name(found.run_id)} has no step {at}")
        return self.store.exchange(found.run_id, rows[at]["span_id"])

    def _following(self, found: Run, at: int) -> Any:
        rows = self.store.ask("steps_of_run", run_id=found.run_id)
        return self.store.exchange(found.run_id, rows[at + 1]["span_id"]) if at + 1 < len(rows) else None

    def _job(self, request: Request) -> Job:
        job = self.jobs.get(request.path_params["job"])
        if job is None:
            raise UnknownRun(
                "this page started nothing of that name: what it starts is forgotten when it ends"
            )
        return job

    def _why_not(self) -> str | None:
        """Return why nothing can be started from this page; None if it can."""
        if not self.permits.allow_run:
            return (
                "this page only looks: start it with --allow-run, and --budget USD for what models cost, "
                "to start agents from it"
            )
        return None

    def _too_dear(self, planned: Estimate) -> str | None:
        """Return why not even one such fork can be paid; None if one can."""
        left = self.ledger.left_usd
        if planned.cost_usd <= left:
            return None
        return (
            f"a fork is likely to take {money(planned.cost_usd)}, and this page may spend {money(left)} "
            f"more: it was started with --budget {self.ledger.budget_usd:g}"
        )

    def _check_allowed(self) -> None:
        if why := self._why_not():
            raise UsageError(why)

    def _budget(self, asked: float | None) -> float:
        return self.ledger.left_usd if asked is None else asked

    def _page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        shared = {"page": self, "template": template}
        return HTMLResponse(environment().get_template(template).render(shared | values), status)

    def _part(self, template: str, *, status: int = 200, **values: Any) -> Response:
        return HTMLResponse(environment().get_template(template).render({"page": self} | values), status)

    def _failed(self, request: Request, error: Exception) -> Response:
        status = 404 if isinstance(error, UnknownRun) else 400 if isinstance(error, UsageError) else 503
        if request.headers.get("hx-request-type") == "partial" or request.method == "POST":
            return self._part("problem.html", problem=str(error), status=status)
        return self._page("error.html", problem=str(error), status=status)

    def _nothing_here(self, request: Request, error: Exception) -> Response:
        known = isinstance(error, HTTPException) and error.status_code == 405
        what = "this cannot be asked for so" if known else "there is no such page"
        answer = self._page("error.html", problem=what, status=405 if known else 404)
        if isinstance(error, HTTPException):
            answer.headers.update(error.headers or {})
        return answer


def _with_form(handler: Callable[[Request, Mapping[str, str]], Response]) -> Any:
    """Return the handler of a filled form, which is asked on a thread of its own."""
    from starlette.concurrency import run_in_threadpool

    async def asked(request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > _FORM:
                return PlainTextResponse("the form is larger than 32 MB\n", 413)
        form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        return await run_in_threadpool(handler, request, form)

    return asked


def _to(where: str) -> Response:
    """Send the browser there."""
    return Response(status_code=200, headers={"hx-redirect": where}, media_type="text/html")


def _number(text: str | None, name: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UsageError(f"{name}={text}: write a number")
    return int(text)


def _grading(form: Mapping[str, str]) -> list[str]:
    """Return the flags that say what a success is; a value that begins with a dash stays a value."""
    flags = [
        f"--{name.replace('_', '-')}={form[name]}"
        for name in ("success_re", "failure_re", "field")
        if form.get(name, "").strip()
    ]
    return [*flags, "--exit-code"] if form.get("exit_code") else flags


def _since(one: experiments.Experiment, job: Job) -> bool:
    from datetime import UTC

    return one.begun.replace(tzinfo=UTC).timestamp() >= job.started - 1


def _lines(below: Mapping[str, list[dict[str, Any]]], top: str) -> list[tuple[int, dict[str, Any]]]:
    """Return the forks below a run, each with its depth; of trials of one experiment only how many."""
    lines: list[tuple[int, dict[str, Any]]] = []
    waiting = [(1, row) for row in reversed(below.get(top, ()))]
    seen = {top}
    trials: dict[tuple[str, str], dict[str, Any]] = {}
    while waiting:
        depth, row = waiting.pop()
        if row["run_id"] in seen:
            continue
        seen.add(row["run_id"])
        if row["kind"] == "trial" and row["run_id"] not in below:
            key = row["parent_run_id"], row["experiment_id"] or ""
            if key not in trials:
                trials[key] = {**row, "trials": 0, "passed": 0}
                lines.append((depth, trials[key]))
            trials[key]["trials"] += 1
            trials[key]["passed"] += row["outcome"] is True
            continue
        lines.append((depth, row))
        waiting += [(depth + 1, one) for one in reversed(below.get(row["run_id"], ()))]
    return lines


@cache
def questions() -> tuple[tuple[str, str], ...]:
    """Return the saved questions: what each asks, and the query."""
    text = resources.files(_PACKAGE).joinpath("questions.sql").read_text()
    return tuple((one["title"], one["query"].strip()) for one in _QUESTION.finditer(text))


@cache
def _own_file(name: str) -> bytes:
    if name == "page.css":
        report = resources.files("tracefork_backend.report").joinpath("templates")
        shared = [report.joinpath(one).read_text() for one in ("colours.css", "pictures.css")]
        own = resources.files(_PACKAGE).joinpath("static", name).read_text()
        return "\n".join([*shared, own]).encode()
    return resources.files(_PACKAGE).joinpath("static", name).read_bytes()
