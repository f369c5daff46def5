"""A model is asked over a socket for changes to a run that was lost, and they are tried on real forks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tracefork_backend as tf
from conftest import Capture
from e2e.command import tracefork
from tracefork_backend.simulate import Call, ModelServer, Reply, Usage
from tracefork_backend.store import Run, open_store
from tracefork_backend.validate.agents import ask

import tracefork_otel
from tracefork_otel import UsageError

GRADED = tf.regex(success="WON", failure="LOST")
MODEL = "claude-sonnet-5"
TWO = [{"step": 1, "text": "fine"}, {"step": 2, "text": "good"}]


class World:
    """A model that answers question 2 badly, by which the run is lost; asked for changes it proposes some."""

    def __init__(self) -> None:
        self.proposes = json.dumps(TWO)
        self.asked: list[dict[str, object]] = []

    def __call__(self, call: Call) -> Reply:
        """A word for a question, the winner for a sum."""
        used = Usage(input_tokens=1000, output_tokens=100)
        if "You propose changes" in str(call.body.get("system")):
            self.asked.append(json.loads(call.last))
            return Reply(text=self.proposes, usage=used)
        if not call.last.startswith("sum "):
            return Reply(text="bad" if call.last.endswith("2") else "good", usage=used)
        return Reply(text="LOST" if call.last.split()[3] == "bad" else "WON", usage=used)


@pytest.fixture
def world() -> World:
    """The model of a test."""
    return World()


@pytest.fixture
def lost(capture: Capture, world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A run that was lost at step 2, and a key for its model."""
    with ModelServer(world) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-test")
        capture.on()
        tracefork_otel.agent(ask)(server.url, 5)
        capture.off()
        yield open_store(capture.store).run("last")


@pytest.mark.slow
def test_a_proposal_is_tried_like_any_other_change(lost: Run, world: World, tmp_path: Path) -> None:
    """Asked once, shown the run's steps and end; what it proposes is confirmed, and told as its own."""
    graded = ("--success-re", "WON", "--failure-re", "LOST", "--budget", "3", "--jobs", "2")
    key = {name: os.environ[name] for name in ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY")}
    words = (
        "repair",
        "last",
        "--store",
        str(lost.store.path),
        "--propose",
        MODEL,
        *graded,
        "--json",
        "--price",
        f"{MODEL}=3/15",
    )
    done = tracefork(*words, cwd=tmp_path, timeout=100, PYTHONPATH="", **key)
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert [(one["step"], one["source"], one["verdict"]) for one in told["repairs"]] == [
        (1, "proposed", "nothing_found"),
        (2, "proposed", "confirmed"),
    ]
    (asked,) = world.asked
    assert [one["step"] for one in asked["steps"]] == [0, 1, 2, 3]
    assert "LOST" in str(asked["how_the_run_ended"])
    assert "bad" in asked["steps"][2]["answer"]
    store = open_store(lost.store.path)
    ((forks,),) = (row.values() for row in store.rows("select sum(cost_usd) from blame_trials"))
    assert told["proposing_usd"] == pytest.approx((1000 * 3 + 100 * 15) / 1e6)
    assert told["spent_usd"] == pytest.approx(forks + told["proposing_usd"])
    (row,) = store.rows("select source from repairs where verdict = 'confirmed'")
    assert row == {"source": "proposed"}


def test_what_cannot_be_tried_is_left_aside_by_name(lost: Run, world: World) -> None:
    """The recorded answer, a step that was not shown, what is no change: said, and the rest is tried."""
    odd = [{"step": 2, "text": "bad"}, {"step": 9, "text": "x"}, "hm"]
    world.proposes = f"Here you are:\n```json\n{json.dumps(odd)}\n```"
    with pytest.raises(UsageError) as refused:
        tf.repair(lost, oracle=GRADED, agent=ask, propose=MODEL)
    for why in ("text bad at step 2 is what was recorded", "no step that was shown: 9", "it is no change"):
        assert why in str(refused.value)


def test_a_proposal_that_writes_what_is_graded_is_left_aside(lost: Run, world: World) -> None:
    """It would succeed whatever had happened before."""
    world.proposes = json.dumps([{"step": 4, "text": "WON"}, {"step": 4, "model": "claude-haiku-4-5"}])
    with pytest.raises(UsageError) as refused:
        tf.repair(lost, oracle=GRADED, agent=ask, propose=MODEL, at=4)
    assert "text WON at step 4 changes the answer that is what is graded" in str(refused.value)
    assert "request model=claude-haiku-4-5 at step 4 is what was recorded" in str(refused.value)


@pytest.mark.parametrize("said", ["I cannot help with that.", "[1, 2", "{}", "", "]["])
def test_an_answer_that_is_no_list_is_said(lost: Run, world: World, said: str) -> None:
    """And nothing of it is tried."""
    world.proposes = said
    with pytest.raises(UsageError, match=f"what {MODEL} answered is no list of changes"):
        tf.repair(lost, oracle=GRADED, agent=ask, propose=MODEL)


def test_a_budget_holds_what_asking_costs(lost: Run, world: World) -> None:
    """It is not asked where it might cost more, nor where nobody knows what it costs."""
    with pytest.raises(UsageError, match=r"for changes may cost .* more than the budget of"):
        tf.repair(lost, oracle=GRADED, agent=ask, propose=MODEL, budget_usd=0.01)
    with pytest.raises(UsageError, match="Say it with --price"):
        tf.repair(lost, oracle=GRADED, agent=ask, propose="nobody-1", budget_usd=5)
    assert world.asked == []


def test_without_a_key_it_says_so(lost: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, with what to do."""
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(UsageError, match=r"cannot be asked: .*; set ANTHROPIC_API_KEY"):
        tf.repair(lost, oracle=GRADED, agent=ask, propose=MODEL)
