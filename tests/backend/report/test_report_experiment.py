"""The report of a real experiment: forks of a recorded agent, graded by the judge, read from the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from anthropic import Anthropic
from forked import at_desk
from tracefork_backend.blaming import changes
from tracefork_backend.blaming.experiment import blame
from tracefork_backend.grading.judge import Judge
from tracefork_backend.report.experiment import report_of_result, report_of_stored
from tracefork_backend.report.html import render
from tracefork_backend.rerun.edits import Edit, text
from tracefork_backend.simulate import Call, ModelServer, Reply

from tracefork_otel import Tape

# A whole experiment: .ci/run has them, `make test` has not.
pytestmark = pytest.mark.slow

AGENT = """
say("plan")
colour = say("pick a colour")
print("DONE" if "RED" in colour else "LOST", say(f"paint it {colour}"))
"""


def grader(call: Call) -> Reply:
    """Judge by the word that the agent printed, in whichever place the choices stand."""
    wanted = "SUCCEEDED" if "DONE" in call.prompt else "FAILED"
    line = next(line for line in call.prompt.splitlines() if wanted in line and line[1:2] == ".")
    return Reply(text=line[0])


def red(tape: Tape, step: int) -> Edit | None:
    """The answer that saves the run, at the step that chooses."""
    return text("RED") if step == 1 else None


def test_an_experiment_becomes_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page shows what a fork changed at the culprit and what judging cost; the store gives the same."""
    with (
        at_desk(tmp_path, monkeypatch) as desk,
        ModelServer(grader) as judging,
        Anthropic(base_url=judging.url, api_key="sk-ant-test", max_retries=0) as client,
    ):
        judge = Judge("The run succeeded if it is done.", client=client)
        change = changes.Change(name="red", make=red, repair=True)
        result = blame(desk.recorded(AGENT), oracle=judge, change=change, mode="intervene", jobs=2)
        assert result.findings.certified == (1,)
        with desk.store as store:
            report = report_of_result(store.run(result.run_id), result)
            stored = report_of_stored(store, result.experiment_id)
    shown = report.change
    assert shown is not None
    assert (shown.step, shown.old, shown.new) == (1, "PICK A COLOUR", "RED")
    assert shown.flipped_run_id in {trial.run_id for trial in result.trials if trial.flipped}
    assert (report.about.grading_usd or 0) > 0
    # Two questions for each of two endings: an ending as the recorded run's is judged with it.
    assert judge.calls == 4
    page = render(report)
    assert "Changing step 1 saves this run." in page
    assert "judge claude-haiku-4-5" in page
    partly = replace(report, about=replace(report.about, grading_unpriced=2))
    assert ("≥" in page, ", 2 answers without a price" in render(partly)) == (False, True)
    assert "its error rates are not known" in page
    assert stored.findings == report.findings
    assert stored.change == report.change
    assert stored.timeline == report.timeline
    assert stored.about.grading_usd == report.about.grading_usd == judge.cost_usd
    assert stored.about.oracle_note == judge.note
