"""What is started from the page: an experiment that is stopped and gone on with, and its money."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from e2e.booking import BOOKING
from e2e.command import BARE, tracefork
from tracefork_backend.page.server import PageServer
from tracefork_backend.store import open_store

Serve = Callable[..., PageServer]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_an_experiment_is_stopped_and_gone_on_with(
    page: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is seen while it runs, kept where it is stopped, resumed within what is left, and paid for once."""
    monkeypatch.setenv("PYTHONPATH", BARE["PYTHONPATH"])
    words = ("run", "--", sys.executable, BOOKING, "--city", "Osaka", "--sampled")
    for _ in range(30):  # of a model that errs in half of its runs
        if "ERROR" in tracefork(*words, cwd=tmp_path, **BARE).out:
            break
    made = page(tmp_path / ".tracefork", allow_run=True, budget_usd=2)
    url, token = f"http://127.0.0.1:{made.port}", {"x-tracefork-token": made.page.permits.action}

    def got(path: str) -> str:
        return httpx2.get(url + path, timeout=60).text

    def posted(path: str, **form: str) -> str:
        answer = httpx2.post(url + path, data=form, headers=token, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.headers["hx-redirect"]

    def until(path: str, pattern: str) -> re.Match[str]:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            if found := re.search(pattern, got(path)):
                return found
            time.sleep(0.2)
        raise AssertionError(got(path))

    run_id = re.findall(r'value="([0-9a-f]{32})"', got("/?kind=record"))[0]
    asked = {"success_re": "BOOKED", "max_trials": "60", "budget": "0.50"}
    job = posted(f"/run/{run_id}/blame", **asked)
    assert made.page.ledger.held_usd == pytest.approx(0.5)
    experiment = until(job, r"/blame/([0-9a-f]{16})")[1]
    until(f"/blame/{experiment}", r"<span>([2-9]|\d\d) forks")
    assert ">running<" in got(f"/blame/{experiment}")
    posted(f"{job}/stop")
    until(job, r'<b class="stopped">(?s:.)*<span>spent \$0')
    until(f"/blame/{experiment}", ">interrupted<")
    # What its forks took, those too that ran when it was stopped, and no more: the rest can be spent again.
    took = made.page.ledger.spent_usd
    assert took > 0
    with open_store(tmp_path / ".tracefork") as store:
        costs = [store.run(row["run_id"]).cost_usd for row in store.ask("trials_that_ran", id=experiment)]
    assert sum(cost or 0.0 for cost in costs) <= took + 1e-9 < 0.4
    forks = int(until(f"/blame/{experiment}", r"<span>(\d+) forks")[1])
    again = posted(f"/blame/{experiment}/resume", budget="0.40", max_trials=str(forks + 4))
    until(again, r'<b class="done">')
    # Its first forks may be such that ask no model.
    assert 1.6 - took <= made.page.ledger.left_usd <= 2 - took
    assert int(until(f"/blame/{experiment}", r"<span>(\d+) forks")[1]) == forks + 4
    assert f"/blame/{experiment}" in got("/blame")
