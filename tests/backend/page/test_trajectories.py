"""The pages over runs of a real agent, which no test made up: long talks, many tools, odd letters."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import httpx2
import pytest
from tracefork_backend.network.addresses import bind
from tracefork_backend.network.trajectories import import_trajectories
from tracefork_backend.page.permits import Permits
from tracefork_backend.page.server import PageServer
from tracefork_backend.page.step import TABS
from tracefork_backend.store import Run, open_store

REAL = Path(__file__).parents[2] / "trajectories" / "tau-airline.json"
RUNS = 200
MOST = 1_000_000
"""Bytes of a page."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred runs: the real ones over and over, each time of other customers."""
    folder = tmp_path_factory.mktemp("trajectories")
    real = json.loads(REAL.read_text())
    many: list[object] = []
    for at in range(RUNS):
        run = json.loads(json.dumps(real[at % len(real)]))
        run["trial"] = at // len(real)
        run["traj"][0]["content"] += f"\n\nThis is desk {at}."
        many.append(run)
    told = folder / "told.json"
    told.write_text(json.dumps(many))
    import_trajectories(folder / "store", told, "openai-messages")
    return folder / "store"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_page_of_real_runs(store: Path) -> None:
    """Each tab of first, middle and last steps, each run beside the next: whole, and of a size to read."""
    with open_store(store) as opened:
        runs = list(opened.runs(limit=RUNS + 1))
        assert len(runs) == RUNS
        chosen = runs[:: RUNS // 4]
        said = [last_words(run) for run in chosen]
    pages = ["/", "/?q=airline", "/sql?q=select+count(*)+from+messages"]
    for run in chosen:
        pages += [f"/run/{run.run_id}", f"/run/{run.run_id}/tree"]
        steps = sorted({0, run.steps // 2, run.steps - 1})
        pages += [f"/run/{run.run_id}?step={step}&tab={tab}" for step in steps for tab in TABS]
    pages += [f"/diff/{a.run_id}/{b.run_id}" for a, b in pairwise(chosen)]
    with (
        PageServer(bind(), store=store, permits=Permits()) as page,
        httpx2.Client(base_url=f"http://127.0.0.1:{page.port}", timeout=60) as browser,
    ):
        for path in pages:
            answer = browser.get(path)
            assert answer.status_code == 200, (path, answer.text[:2000])
            assert len(answer.content) < MOST, path
        for run, words in zip(chosen, said, strict=True):
            shown = browser.get(f"/run/{run.run_id}?step={run.steps - 1}&tab=conversation").text
            assert words in shown


def last_words(run: Run) -> str:
    """The plain beginning of what the model said last."""
    response = run.step(-1).exchange.response
    assert response is not None
    message = json.loads(response.body)["choices"][0]["message"]
    told = message["content"] or message["tool_calls"][0]["function"]["name"]
    return told.partition("'")[0].partition('"')[0].partition("&")[0].partition("\n")[0][:60]
