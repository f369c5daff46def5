"""Repairs of real runs by real forks: from redraws that were paid for, from edits, within a budget."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import tracefork_backend as tf
from conftest import Capture
from tracefork_backend.blaming import journal
from tracefork_backend.repairing.candidates import MOST, Candidate, Found, chosen
from tracefork_backend.repairing.carrying import carried
from tracefork_backend.repairing.hunks import Hunk, Whole
from tracefork_backend.repairing.repair import Progress
from tracefork_backend.repairing.resuming import find, journal_of
from tracefork_backend.repairing.stored import stored_search
from tracefork_backend.rerun.edits.files import read_edits, write_edits
from tracefork_backend.rerun.trust import NotTrusted
from tracefork_backend.simulate import ModelServer
from tracefork_backend.simulate.model import Call, Reply, Usage
from tracefork_backend.store import Run, open_store
from tracefork_backend.validate.agents import ask

import tracefork_otel
from tracefork_otel import UsageError

GRADED = tf.regex(success="WON", failure="LOST")
STEP = 2
TRIED = [(1, tf.text("worse")), (STEP, tf.text("fine"))]
"""One that repairs nothing, and one that does."""


class World:
    """A model whose last answer says who won: lost where the answer to question 2 was bad."""

    def __init__(self) -> None:
        self.rng = random.Random(7)
        self.bad = 1.0
        """Chance that question 2 is answered badly."""

    def __call__(self, call: Call) -> Reply:
        """A word for a question, the winner for a sum."""
        used = Usage(input_tokens=1000, output_tokens=0)
        if not call.last.startswith("sum "):
            bad = call.last.endswith(str(STEP)) and self.rng.random() < self.bad
            return Reply(text="bad" if bad else "good", usage=used)
        return Reply(text="LOST" if call.last.split()[1 + STEP] == "bad" else "WON", usage=used)


WORLD = World()


@pytest.fixture
def lost(capture: Capture) -> Iterator[Run]:
    """A run that was lost at step 2, whose model answers well in half of all redraws."""
    WORLD.bad = 1.0
    with ModelServer(WORLD) as server:
        capture.on()
        tracefork_otel.agent(ask)(server.url, 5)
        capture.off()
        WORLD.bad = 0.5
        yield open_store(capture.store).run("last")


@pytest.mark.slow
def test_a_redraw_that_blame_paid_for_is_confirmed_on_fresh_forks(lost: Run) -> None:
    """The answer with which redraws of step 2 succeeded; the recorded one is not tried."""
    assert tf.blame(lost, oracle=GRADED, mode="value", agent=ask).top == STEP
    found = tf.repair(open_store(lost.store.path).run(lost.run_id), oracle=GRADED, agent=ask, alpha=0.05)
    (one,) = found.repairs
    assert (one.step, one.verdict, one.candidate.source) == (STEP, "confirmed", "redraw")
    assert found.edit == tf.text("good")
    assert one.tried.measured["flips_control"] == 0
    assert found.message == 'step 2: text "good" for "bad"'
    path = journal.path_of(lost.store.path, found.repair_id, journal.REPAIR)
    header, trials, _ = journal.read(path)
    assert trials == list(found.trials)
    assert {trial.phase for trial in trials} == {"repair"}
    assert header["run_id"] == lost.run_id
    store = open_store(lost.store.path)
    (row,) = store.rows("select step, verdict, source, edit, minimal, forks, effect from repairs")
    assert row == {
        "step": STEP,
        "verdict": "confirmed",
        "source": "redraw",
        "edit": '"good"',
        "minimal": True,
        "forks": one.tried.forks,
        "effect": 1.0,
    }
    asked = f"select count(*) as trials from blame_trials where experiment_id = '{found.repair_id}'"
    assert store.rows(asked) == [{"trials": len(trials)}]
    (note,) = store.rows("select trace_id, links from spans where name = 'tracefork.repair confirmed'")
    assert note["trace_id"] == lost.run_id
    fresh = [trial.run_id for trial in trials if trial.arm_id.startswith("confirm:0:changed")]
    assert len(fresh) == len(set(fresh)) == one.tried.measured["n_treatment"]
    links = {link["trace_id"] for link in json.loads(note["links"])}
    assert set(fresh) <= links


@pytest.mark.slow
def test_what_somebody_gave_is_tried_and_what_repairs_nothing_is_not_confirmed(lost: Run) -> None:
    """The recorded answer is no candidate; another one that loses too is tried and left."""
    found = tf.repair(
        lost,
        oracle=GRADED,
        agent=ask,
        edits=[(1, tf.text("good")), (1, tf.text("bad")), (2, tf.text("fine"))],
    )
    assert found.left == ("text good at step 1 is what was recorded",)
    assert [(one.step, one.verdict) for one in found.repairs] == [(1, "nothing_found"), (2, "confirmed")]
    assert found.verdict == "confirmed"


@pytest.mark.slow
def test_a_budget_is_not_passed_and_ends_it_with_an_answer(lost: Run) -> None:
    """Five forks have room: nothing is confirmed, and what was paid is no more than that."""
    dear = ["claude-haiku-4-5=10/0"]
    found = tf.repair(
        lost, oracle=GRADED, agent=ask, edits={2: tf.text("fine")}, budget_usd=0.2, price=dear, jobs=2
    )
    assert found.verdict == "budget"
    assert 0 < found.cost_usd <= 0.2
    assert "no repair is confirmed yet: the budget ended after 1 candidate" in found.message


@pytest.mark.slow
def test_what_was_interrupted_goes_on_and_pays_for_no_fork_twice(lost: Run) -> None:
    """It ends as one that was not interrupted, each of its forks made once, by the limits that hold now."""
    whole = tf.repair(lost, oracle=GRADED, agent=ask, edits=TRIED)

    def interrupt(progress: Progress) -> None:
        if progress.forks == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tf.repair(lost, oracle=GRADED, agent=ask, edits=TRIED, on_progress=interrupt)
    repair_id = find(lost.store.path, "last")
    before = journal.read(journal_of(lost.store.path, repair_id))[1]
    again = open_store(lost.store.path).run(lost.run_id)
    cut = tf.repair(again, oracle=GRADED, agent=ask, resume=repair_id, max_trials=14)
    assert (cut.verdict, cut.stop_reason, len(cut.trials)) == ("budget", "max_trials", 14)
    assert "the number of forks ended after 1 of 2 candidates" in cut.message
    with pytest.raises(UsageError, match="14 forks were made already"):
        tf.repair(again, oracle=GRADED, agent=ask, resume=repair_id, max_trials=3)
    found = tf.repair(again, oracle=GRADED, agent=ask, resume=repair_id, max_trials=500)
    assert found.trials[: len(before)] == tuple(before)
    assert len({one.trial_id for one in found.trials}) == len(found.trials)
    assert [(one.words, one.verdict, one.tried.kept) for one in found.repairs] == [
        (one.words, one.verdict, one.tried.kept) for one in whole.repairs
    ]
    assert found.verdict == "confirmed"
    store = open_store(lost.store.path)
    (row,) = store.rows(f"select step, verdict from repairs where repair_id = '{repair_id}' and rank = 2")
    assert row == {"step": STEP, "verdict": "confirmed"}
    assert stored_search(store, repair_id)["forks"] == len(found.trials)


@pytest.mark.slow
def test_what_goes_on_is_what_was_begun(lost: Run, tmp_path: Path) -> None:
    """Another oracle, other edits, and a journal that does not say what is tried are refused, in words."""
    how = {"agent": ask, "edits": TRIED, "max_trials": 3}
    found = tf.repair(lost, oracle=GRADED, **how)  # type: ignore[arg-type]
    assert "the number of forks ended after none of 2 candidates" in found.message
    with pytest.raises(UsageError, match="its oracle was"):
        tf.repair(lost, oracle=tf.regex(success="W"), agent=ask, resume=found.repair_id, max_trials=9)
    with pytest.raises(UsageError, match="tries what it began with"):
        tf.repair(lost, oracle=GRADED, **how, resume=found.repair_id)  # type: ignore[arg-type]
    path = journal_of(lost.store.path, found.repair_id)
    header, *trials = path.read_text().splitlines()
    told = json.loads(header)
    told["settings"]["repair"]["candidates"][1]["edit"] = "worse"
    path.write_text("\n".join([json.dumps(told), *trials, ""]))
    with pytest.raises(NotTrusted, match="was changed"):
        tf.repair(lost, oracle=GRADED, agent=ask, resume=found.repair_id, max_trials=9)
    del told["settings"]["repair"]
    path.write_text("\n".join([json.dumps(told), *trials, ""]))
    with pytest.raises(UsageError, match=r"by an older version.*type its `repair` again"):
        tf.repair(lost, oracle=GRADED, agent=ask, resume=found.repair_id, max_trials=9, trust=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edits", "says"),
    [
        ({}, "there is nothing to try"),
        ({7: tf.text("x")}, "has no step 7"),
        ({2: tf.tool_input({"a": 1})}, "step 2"),
        ({1: tf.text("good")}, "is what was recorded"),
        ({1: tf.model("claude-haiku-4-5")}, "is what was recorded"),
        ({4: tf.text("WON")}, "is what is graded"),
    ],
)
def test_what_cannot_be_tried_is_refused(lost: Run, edits: dict[int, tf.Fork], says: str) -> None:
    """In words that say what to do."""
    with pytest.raises(UsageError, match=says):
        tf.repair(lost, oracle=GRADED, agent=ask, edits=edits)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_that_went_well_has_nothing_to_repair(lost: Run) -> None:
    """It is said before anything is paid but its replay."""
    with pytest.raises(UsageError, match="nothing to repair"):
        tf.repair(lost, oracle=tf.regex(success="LOST"), agent=ask, edits={2: tf.text("fine")})


@pytest.mark.parametrize(("more", "says"), [(1, "1 further candidate: 6"), (3, "3 further candidates: 6")])
def test_of_redraws_that_all_differ_six_are_tried_and_how_many_are_not_is_said(more: int, says: str) -> None:
    """The evidence asked of each grows with their number."""
    every = [Whole(tf.text(f"Quito {n}"), Hunk(what="text", old="", new=str(n))) for n in range(MOST + more)]
    found = chosen([Found(candidates=tuple(Candidate(source="redraw", step=0, parts=one) for one in every))])
    assert [one.parts for one in found.candidates] == every[:MOST]
    assert found.left == (f"{says} are tried in one search",)


def test_edits_are_the_same_once_written_and_read(tmp_path: Path) -> None:
    """Each kind that a file has a place for."""
    edits = {
        0: tf.request(system="Be brief.", model="claude-haiku-4-5", set={"temperature": 0}, scope="once"),
        1: tf.text("hello"),
        2: tf.tool_input({"a": [1]}, tool="look#2"),
        3: tf.tool_result("look", {"seats": 0}),
        4: tf.response('{"type": "message"}'),
    }
    write_edits(tmp_path / "edits.json", edits)
    assert read_edits(tmp_path / "edits.json", "--edit") == edits
    with pytest.raises(UsageError, match="has no place in a file"):
        write_edits(tmp_path / "none.json", {0: tf.noop()})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "must be like"),
        ("{", "is not JSON"),
        ('{"1": "a", "2": 7}', "step 2: 7 is neither a text nor"),
        ('{"2": "a", "2": "b"}', "has step 2 twice"),
        ('{"2": "a", "02": "b"}', "has step 2 twice"),
        ('{"2": {"system": 7}}', "system is to be a text"),
        ('{"2": {"set": []}}', "set is to be an object"),
        ('{"2": {"tool_result": []}}', "tool_result is to be one value"),
        ('{"2": {"tool_input": {}, "model": "m"}}', "'model' says nothing beside 'tool_input'"),
    ],
)
def test_a_file_of_a_wrong_shape_is_refused(tmp_path: Path, text: str, says: str) -> None:
    """With the flag, the file, and what is wrong in it."""
    (tmp_path / "edits.json").write_text(text)
    with pytest.raises(UsageError, match=says) as refused:
        read_edits(tmp_path / "edits.json", "--try")
    assert str(refused.value).startswith(f"--try: {tmp_path / 'edits.json'}")


def planned(url: str, steps: int) -> str:
    """Ask once, with a system prompt; the number of steps names the task."""
    body = {
        "model": "claude-haiku-4-5",
        "max_tokens": 100,
        "system": "Be polite.\nBe slow.",
        "messages": [{"role": "user", "content": f"task {steps}"}],
    }
    with httpx2.Client(verify=False) as client:
        answer = client.post(f"{url}/v1/messages", json=body).raise_for_status().json()
    return str(answer["content"][0]["text"])


def by_prompt(call: Call) -> Reply:
    """Task 1 is won by who is quick, task 2 by who is slow, task 3 by everybody."""
    quick = "Be quick." in str(call.body.get("system"))
    won = {"task 1": quick, "task 2": not quick}.get(call.last, True)
    return Reply(text="WON" if won else "LOST", usage=Usage(input_tokens=10, output_tokens=0))


@pytest.mark.slow
def test_a_repair_of_requests_is_carried_over_and_what_gets_worse_is_named(capture: Capture) -> None:
    """One line of the prompt is the repair; of two other runs one is lost with it."""
    with ModelServer(by_prompt) as server:
        capture.on()
        for task in (3, 2, 1):
            tracefork_otel.agent(planned)(server.url, task)
        capture.off()
        store = open_store(capture.store)
        edit = tf.system("Be kind.\nBe quick.")
        found = tf.repair(store.run("last"), oracle=GRADED, agent=planned, edits={0: edit})
        assert found.edit == tf.system("Be polite.\nBe quick.")
        assert found.confirmed[0].words == "system Be quick. for Be slow."
        others = [store.run("last~1"), store.run("last~2")]
        beside = carried(
            found.confirmed[0], others, oracle=GRADED, budget_usd=None, agent=planned, store=store
        )
    assert (beside.checked, beside.better, len(beside.same)) == (2, (), 1)
    assert beside.worse == (others[0].run_id,)
