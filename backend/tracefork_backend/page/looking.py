"""What the page shows: each function answers one address, and changes nothing."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tracefork_otel.errors import StoreError, UnknownRun, UsageError

from ..spelling import counted, run_name
from ..statistics.intervals import wilson
from ..store import doctor as examine
from ..store.listing import ENDED, KINDS, STATUSES
from . import experiments, run, runs, step
from .context import Page, number
from .templating import fitting, folded, last_words, texts_of, with_changes

_PACKAGE = "tracefork_backend.page"
_STATIC = {
    "htmx.min.js": "text/javascript",
    "keys.js": "text/javascript",
    "page.css": "text/css",
    "icon.svg": "image/svg+xml",
}
_ROWS = 1_000
"""Rows of an answer in SQL that a page shows."""
_CELL = 400
"""Characters of a value of it."""
_CELLS = 500
"""Rows of the matrix."""
_SECONDS = 60.0
"""So long a question in SQL may take."""
_QUERY = 20_000
"""Characters of one."""
_QUESTION = re.compile(r"^-- (?P<title>.+)\n(?P<query>[^-][\s\S]*?)(?=^-- |\Z)", re.MULTILINE)


def list_of_runs(page: Page, request: Request) -> Response:
    """The list."""
    asked = runs.Asked.of(request.query_params)
    found = runs.listed(page.store, asked)
    return page.whole(
        "runs.html",
        asked=asked,
        found=found,
        kinds=KINDS,
        statuses=STATUSES,
        outcomes=ENDED,
        at_once=runs.AT_ONCE,
    )


def one_run(page: Page, request: Request) -> Response:
    """One run, and a step of it beside."""
    found = page.run(request)
    at = number(request.query_params.get("step"), "step")
    told = run.shown(page.store, found, step=at)
    pane = None
    if told.steps:
        at = min(at, told.steps - 1)
        pane = step.shown(page.store, found, at, request.query_params.get("tab", step.TABS[0]))
    return page.whole("run.html", told=told, at=at, pane=pane, tabs=step.TABS)


def one_step(page: Page, request: Request) -> Response:
    """The step pane alone."""
    found, at = page.run(request), request.path_params["step"]
    pane = step.shown(page.store, found, at, request.query_params.get("tab", step.TABS[0]))
    return page.part("step.html", pane=pane, tabs=step.TABS)


def message(page: Page, request: Request) -> Response:
    """The next piece of a long message."""
    messages = step.messages_of(page.store, page.run(request), request.path_params["step"])
    place = request.path_params["place"]
    if place >= len(messages):
        raise UsageError(f"this step has {counted(len(messages), 'message')}, none with number {place}")
    begin = number(request.query_params.get("from"), "from")
    text, left = step.cut(messages[place].content, begin, step.PIECE)
    where = f"/run/{request.path_params['run']}/step/{request.path_params['step']}/message/{place}"
    return page.part("more.html", text=text, left=left, where=where, begin=begin + len(text))


def text(page: Page, request: Request) -> Response:
    """The next piece of a long body."""
    found, at, tab = page.run(request), request.path_params["step"], request.path_params["tab"]
    exchange = page.exchange(found, at)
    begin = number(request.query_params.get("from"), "from")
    text, left = step.cut(step.body_text(exchange, response=tab != "request"), begin, step.PIECE)
    where = f"/run/{found.run_id}/step/{at}/text/{tab}"
    return page.part("more.html", text=text, left=left, where=where, begin=begin + len(text))


def picture(page: Page, request: Request) -> Response:
    """A picture of the conversation, from the recorded bytes."""
    messages = step.messages_of(page.store, page.run(request), request.path_params["step"])
    place = request.path_params["place"]
    found = step.picture_of(messages[place]) if place < len(messages) else None
    if found is None:
        raise UsageError("there is no picture")
    kind, data = found
    return Response(data, media_type=kind)


def raw(page: Page, request: Request) -> Response:
    """A body byte for byte, or the request as a curl command, as a file."""
    found, at, side = page.run(request), request.path_params["step"], request.path_params["side"]
    exchange = page.exchange(found, at)
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


def tree(page: Page, request: Request) -> Response:
    """A run with its forks, and theirs."""
    found = page.run(request)
    top, seen = found, {found.run_id}
    while top.parent_run_id is not None and top.parent_run_id not in seen:
        seen.add(top.parent_run_id)
        try:
            top = page.store.run(top.parent_run_id)
        except UnknownRun:
            break
    below: dict[str, list[dict[str, Any]]] = {}
    for row in page.store.ask("forks_below", run_id=top.run_id):
        below.setdefault(row["parent_run_id"], []).append(row)
    return page.whole("tree.html", found=found, top=top, lines=_lines(below, top.run_id))


def compare(page: Page, request: Request) -> Response:
    """Two runs that were marked in the list."""
    marked = request.query_params.getlist("run")
    if len(marked) != 2:
        raise UsageError(f"{counted(len(marked), 'run')} marked: mark two of the list to compare them")
    where = f"/diff/{quote(marked[1], safe='')}/{quote(marked[0], safe='')}"
    return Response(status_code=303, headers={"location": where})


def beside(page: Page, request: Request) -> Response:
    """Two runs beside each other."""
    a, b = (page.store.run(request.path_params[name]) for name in "ab")
    found = page.compared(a, b)
    begin = number(request.query_params.get("from"), "from")
    every = folded(found)
    rows = fitting(map(with_changes, every[begin:]), texts_of, around=150)
    after = begin + len(rows)
    return page.whole(
        "diff.html", found=found, rows=rows, sides=(a, b), ends=last_words(found), begin=begin,
        after=after if after < len(every) else None,
    )  # fmt: skip


def list_of_experiments(page: Page, request: Request) -> Response:
    """All experiments."""
    return page.whole("experiments.html", found=experiments.listed(page.store))


def one_experiment(page: Page, request: Request) -> Response:
    """One experiment, also while it runs."""
    shown = experiments.shown(page.store, request.path_params["experiment"])
    job = next(
        (one for one in page.jobs.running() if one.experiment_id == shown.experiment_id
         or (one.experiment_id is None and one.words[1] == "blame" and one.run_id in shown.run_ids)),
        None,
    )  # fmt: skip
    return page.whole("experiment.html", shown=shown, job=job, **shown.values)


def matrix(page: Page, request: Request) -> Response:
    """What came of forks, by run, step and change."""
    ref = request.query_params.get("run")
    found = page.store.run(ref) if ref else None
    run_id = None if found is None else found.run_id
    rows = page.store.ask("cells_of_forks", run_id=run_id, limit=_CELLS)
    for row in rows:
        graded = row["passed"] + row["failed"]
        row["rate"] = row["passed"] / graded if graded else None
        row["interval"] = wilson(row["passed"], graded) if graded else None
    return page.whole("matrix.html", rows=rows, found=found)


def sql(page: Page, request: Request) -> Response:
    """A question in SQL, and its answer."""
    query = request.query_params.get("q", "")
    answer, problem = None, None
    if query.strip():
        try:
            answer = _answered(page, query)
        except (UsageError, StoreError) as error:
            problem = str(error)
    rows = [] if answer is None else fitting(answer.rows[:_ROWS], _cells, around=30)
    return page.whole(
        "sql.html", query=query, answer=answer, rows=rows, most=_CELL, problem=problem, questions=questions(),
        status=400 if problem else 200,
    )  # fmt: skip


def _cells(row: Sequence[object]) -> list[str]:
    return ["" if one is None else str(one)[:_CELL] for one in row]


def as_csv(page: Page, request: Request) -> Response:
    """The whole answer as a file."""
    answer = _answered(page, request.query_params.get("q", ""))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(answer.columns)
    writer.writerows(answer.rows)
    headers = {"content-disposition": 'attachment; filename="answer.csv"'}
    return Response(
        out.getvalue().encode("utf-8", "backslashreplace"), media_type="text/csv", headers=headers
    )


def doctor(page: Page, request: Request) -> Response:
    """What the doctor says."""
    report = examine(page.store.path)
    return page.whole("doctor.html", report=report, lines=report.lines())


def static(page: Page, request: Request) -> Response:
    """A file of the page's own."""
    name = request.path_params["name"]
    if name not in _STATIC:
        raise HTTPException(404)
    return Response(_own_file(name), media_type=_STATIC[name])


def _answered(page: Page, query: str) -> Any:
    if len(query) > _QUERY:
        raise UsageError(f"the question is longer than {_QUERY:,} characters")
    page.store.current()
    return page.store.answer(query, seconds=_SECONDS)


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


GET = {
    "/": list_of_runs,
    "/run/{run}": one_run,
    "/run/{run}/step/{step:int}": one_step,
    "/run/{run}/step/{step:int}/message/{place:int}": message,
    "/run/{run}/step/{step:int}/text/{tab}": text,
    "/run/{run}/step/{step:int}/picture/{place:int}": picture,
    "/run/{run}/step/{step:int}/raw/{side}": raw,
    "/run/{run}/tree": tree,
    "/diff/{a}/{b}": beside,
    "/diff": compare,
    "/blame": list_of_experiments,
    "/blame/{experiment}": one_experiment,
    "/matrix": matrix,
    "/sql": sql,
    "/sql.csv": as_csv,
    "/doctor": doctor,
    "/static/{name}": static,
}
