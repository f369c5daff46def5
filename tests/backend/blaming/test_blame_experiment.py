"""Experiments with real forks of real runs: what they certify, resume, recompute, refuse and write back."""

from __future__ import annotations

import dataclasses
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tracefork_backend as tf
from conftest import Capture
from tracefork_backend.blaming import changes, experiment, journal
from tracefork_backend.blaming.changes import Change
from tracefork_backend.blaming.experiment import Progress, estimate
from tracefork_backend.blaming.verifying import verify
from tracefork_backend.blaming.writing import write_back
from tracefork_backend.grading.function import function
from tracefork_backend.grading.graded import Graded
from tracefork_backend.grading.judge import JUDGE_MODEL, Judge
from tracefork_backend.grading.oracle import digest_of
from tracefork_backend.page.experiments import shown
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.simulate import ModelServer
from tracefork_backend.simulate.model import Call, Reply, Usage
from tracefork_backend.store import Run, Store, open_store
from tracefork_backend.validate.agents import ask

import tracefork_otel
from tracefork_otel import UsageError
from tracefork_otel.errors import TraceforkError

MODEL = "claude-haiku-4-5"
GRADED = tf.regex(success="WON", failure="LOST")


class World:
    """A model whose last answer says who won, by what the earlier answers were; it may flip by chance."""

    def __init__(self) -> None:
        self.cause: tuple[int, ...] = ()
        self.noise = 0.0
        self.rng = random.Random(7)

    def __call__(self, call: Call) -> Reply:
        """A word for a question, the winner for a sum."""
        used = Usage(input_tokens=1000, output_tokens=0)
        if not call.last.startswith("sum "):
            return Reply(text="good", usage=used)
        said = call.last.split()[1:]
        lost = bool(self.cause) and all(said[step] == "bad" for step in self.cause)
        if self.rng.random() < self.noise:
            lost = not lost
        return Reply(text="LOST" if lost else "WON", usage=used)


WORLD = World()


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    """The model."""
    with ModelServer(WORLD) as running:
        yield running


@pytest.fixture
def recorded(capture: Capture, server: ModelServer) -> Iterator[Callable[..., Run]]:
    """Records one run of so many steps in a world with this cause and this noise."""

    def make(steps: int = 5, cause: tuple[int, ...] = (), noise: float = 0.0, seed: int = 7) -> Run:
        WORLD.cause, WORLD.noise, WORLD.rng = cause, 0.0, random.Random(seed)
        server.requests.clear()
        capture.on()
        tracefork_otel.agent(ask)(server.url, steps)
        capture.off()
        WORLD.noise = noise
        return open_store(capture.store).run("last")

    yield make
    WORLD.cause, WORLD.noise = (), 0.0


BAD = changes.ablate("bad")


@pytest.mark.slow
def test_the_planted_step_of_a_deterministic_agent_is_certified_and_kept(
    recorded: Callable[..., Run],
) -> None:
    """One step is the root, the rest is not named; SQL, the parent's notes and the trials say the same."""
    run = recorded(5, cause=(2,))
    result = tf.blame(run, oracle=GRADED, change=BAD, mode="intervene", agent=ask)
    assert result.findings.certified == (2,)
    assert result.findings.deterministic
    store = open_store(run.store.path)
    assert [(row["step"], row["verdict"], row["is_root"]) for row in store.rows("select * from blame")] == [
        (2, "certified", True)
    ]
    (experiment,) = store.rows("select * from blame_experiments")
    assert experiment["forks"] == len(result.trials) == len(store.rows("select * from blame_trials"))
    assert experiment["spent_usd"] == pytest.approx(result.cost_usd)
    assert len(store.runs("trial")) == len(result.trials) + 1  # the one that admitted the run
    notes = store.rows(
        "select name, status, links from spans where trace_id = $id and name like 'tracefork.blame%'",
        {"id": run.run_id},
    )
    assert [(one["name"], one["status"]) for one in notes] == [("tracefork.blame certified", "ERROR")]
    flipped = [one.run_id for one in result.trials if one.status == "flip" and 2 in one.steps]
    assert flipped
    assert all(run_id in notes[0]["links"] for run_id in flipped)
    assert verify(store, "last") == (result.experiment_id, [])


@pytest.mark.slow
def test_an_experiment_whose_end_is_being_written_is_not_yet_free(
    recorded: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others see it run until they see how it ended; between the two it would be called interrupted."""
    run, seen = recorded(3, cause=(1,)), []

    def looked(store: Store, *given: Any, **named: Any) -> None:
        seen.append(shown(store, "last").state)
        write_back(store, *given, **named)

    monkeypatch.setattr(experiment, "write_back", looked)
    result = tf.blame(run, oracle=GRADED, change=BAD, mode="intervene", agent=ask)
    seen.append(shown(run.store, "last").state)
    assert seen == ["running", result.findings.stop_reason]


@pytest.mark.slow
def test_two_steps_that_flip_only_together_are_named(recorded: Callable[..., Run]) -> None:
    """Forks that change several calls find the pair, and neither member alone."""
    run = recorded(5, cause=(1, 3))
    result = tf.blame(run, oracle=GRADED, change=BAD, mode="intervene", agent=ask)
    assert [found.steps for found in result.findings.sets if found.verdict == "certified"] == [(1, 3)]
    assert any(one.altered == (1, 3) and one.status == "flip" for one in result.trials)
    assert not any(len(one.altered) == 1 and one.status == "flip" for one in result.trials)


@pytest.mark.slow
def test_a_noisy_agent_with_a_cause_is_certified_by_intervals(recorded: Callable[..., Run]) -> None:
    """Where a tenth of all re-runs flip, the planted step is still told from the noise."""
    run = recorded(4, cause=(1,), noise=0.1, seed=3)
    result = tf.blame(run, oracle=GRADED, change=BAD, mode="intervene", agent=ask)
    assert result.findings.certified == (1,)
    (effect,) = (one for one in result.findings.effects if one.step == 1)
    assert effect.ci_kind == "betting"
    assert effect.ci_low is not None
    assert effect.ci_low > 0
    assert verify(open_store(run.store.path), "last")[1] == []


@pytest.mark.slow
def test_an_interrupted_experiment_goes_on_without_paying_twice(
    recorded: Callable[..., Run], server: ModelServer
) -> None:
    """After an interrupt the trials of before stand as they were, and only the rest is run."""
    run = recorded(4, cause=(1,))

    def interrupt(progress: Progress) -> None:
        if progress.forks == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tf.blame(run, oracle=GRADED, change=BAD, mode="intervene", agent=ask, on_progress=interrupt)
    experiment_id = journal.find(run.store.path, "last")
    path = run.store.path / "blame" / f"{experiment_id}.journal.jsonl"
    before = journal.read(path)[1]
    with path.open("ab") as file:
        file.write(b'{"trial_id": "cut in tw')  # as a kill leaves it
    server.requests.clear()
    run = open_store(run.store.path).run(run.run_id)
    result = tf.blame(run, oracle=GRADED, change=BAD, mode="intervene", agent=ask, resume=experiment_id)
    assert len(before) == 3
    assert result.trials[:3] == tuple(before)
    assert len({one.trial_id for one in result.trials}) == len(result.trials)
    live = sum(one.calls_live for one in result.trials[3:])
    assert len(server.requests) == live
    assert result.findings.certified == (1,)
    with pytest.raises(UsageError, match="change was 'ablate', now it is 'noop'"):
        tf.blame(run, oracle=GRADED, change=changes.noop(), agent=ask, resume=experiment_id)


@pytest.mark.slow
def test_an_experiment_goes_on_with_other_limits_and_keeps_them(recorded: Callable[..., Run]) -> None:
    """More forks are made, none twice, and the numbers follow from them; no limit goes below what it took."""
    run = recorded(4, cause=(1,))

    def blamed(**how: Any) -> tf.BlameResult:
        return tf.blame(
            open_store(run.store.path).run(run.run_id),
            oracle=GRADED,
            change=changes.resample(),
            agent=ask,
            **{"mode": "fixed", "max_trials": 2, **how},
        )

    found = blamed()
    assert (len(found.trials), found.findings.stop_reason) == (2, "max_trials")
    path = journal.path_of(run.store.path, found.experiment_id)
    for forks, money in ((5, None), (6, 4.0), (6, 3.0)):
        limits = {"max_trials": forks, "budget_usd": money}
        before, found = found, blamed(resume=found.experiment_id, **limits)
        assert found.trials[: len(before.trials)] == before.trials
        assert len({one.trial_id for one in found.trials}) == forks
        assert journal.limits_of(journal.read(path)[0]) == limits
        assert verify(open_store(run.store.path), "last") == (found.experiment_id, [])
    for less, says in (
        ({"max_trials": 5}, "--max-trials 5 is less than the experiment took: 6 forks were made already"),
        ({"max_trials": 6, "budget_usd": 1e-4}, r"--budget 0.0001 is less .*: \$0.\d+ is spent already"),
        ({"max_trials": 6, "mode": "value"}, "its mode was 'fixed', now it is 'value'"),
        ({"max_trials": 6, "alpha": 0.2}, "its alpha was 0.05, now it is 0.2"),
    ):
        with pytest.raises(UsageError, match=says):
            blamed(resume=found.experiment_id, **less)
    assert len(journal.read(path)[1]) == 6
    blamed(resume=found.experiment_id, max_trials=None)
    assert journal.limits_of(journal.read(path)[0]) == {"max_trials": 6, "budget_usd": 3.0}
    assert len(journal.read(path)[1]) == 6


@pytest.mark.slow
def test_an_oracle_that_changed_is_refused_by_name(
    recorded: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything runs, as a limit is; not where it is said to grade alike, or nobody knows."""
    run = recorded(4, cause=(1,))
    monkeypatch.chdir(tmp_path)
    checks = tmp_path / "checks_of_resume.py"
    checks.write_text("def good(graded):\n    return 'WON' in graded.output\n")

    def blamed(**how: Any) -> tf.BlameResult:
        sys.modules.pop("checks_of_resume", None)
        oracle = function("checks_of_resume:good")
        limits = {"mode": "fixed", "max_trials": 2, **how}
        again = open_store(run.store.path).run(run.run_id)
        return tf.blame(again, oracle=oracle, change=changes.resample(), agent=ask, **limits)

    found = blamed()
    checks.write_text(checks.read_text() + "# another text\n")
    monkeypatch.setattr("tracefork_backend.blaming.experiment.Forker", None)  # nothing is to run
    with pytest.raises(UsageError, match=rf"checks_of_resume:good \({checks}\) has changed .*--same-oracle"):
        blamed(resume=found.experiment_id)
    with pytest.raises(UsageError, match=r"--max-trials 1 is less .*: 2 forks"):
        blamed(resume=found.experiment_id, max_trials=1)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert len(blamed(resume=found.experiment_id, max_trials=3, same_oracle=True).trials) == 3
    path = journal.path_of(run.store.path, found.experiment_id)
    first, *trials = path.read_text().splitlines(keepends=True)
    told = {name: value for name, value in json.loads(first).items() if name != "oracle_sha256"}
    path.write_text("".join([json.dumps(told) + "\n", *trials]))  # as earlier versions wrote it
    assert len(blamed(resume=found.experiment_id, max_trials=4).trials) == 4


@pytest.mark.slow
def test_a_module_that_an_oracle_imports_is_refused_by_name_where_it_changed(
    recorded: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the user's own code, however far away; what it does not import may change."""
    run = recorded(4, cause=(1,))
    monkeypatch.chdir(tmp_path)
    rules = tmp_path / "rules_of_resume" / "words.py"
    fits = "def fits(graded):\n    from . import words\n    return words.WON in graded.text\n"
    for file, text in (
        (tmp_path / "checks_by_rules.py", "import json\nfrom rules_of_resume import fits as good\n"),
        (rules.with_name("__init__.py"), fits),
        (rules, "WON = 'WON'\n"),
        (tmp_path / "beside_of_resume.py", "WON = 1\n"),
    ):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)

    def blamed(**how: Any) -> tf.BlameResult:
        for name in [one for one in sys.modules if one.endswith("_by_rules") or "rules_of_resume" in one]:
            sys.modules.pop(name)
        limits = {"mode": "fixed", "max_trials": 2, **how}
        again = open_store(run.store.path).run(run.run_id)
        with monkeypatch.context() as patched:
            patched.syspath_prepend(tmp_path)
            oracle = function("checks_by_rules:good")
            return tf.blame(again, oracle=oracle, change=changes.resample(), agent=ask, **limits)

    found = blamed()
    header = journal.read(journal.path_of(run.store.path, found.experiment_id))[0]
    assert {*header["oracle_modules"]} == {"rules_of_resume.words"}
    (tmp_path / "beside_of_resume.py").write_text("WON = 2\n")
    assert len(blamed(resume=found.experiment_id, max_trials=3).trials) == 3
    rules.write_text("WON = 'WO'\n")
    says = rf"checks_by_rules:good \(.*\) imports rules_of_resume.words \({rules}\), which has changed since"
    with pytest.raises(UsageError, match=says):
        blamed(resume=found.experiment_id, max_trials=4)
    rules.unlink()
    with pytest.raises(
        UsageError, match=r"imports rules_of_resume.words, which has gone since .*--same-oracle"
    ):
        blamed(resume=found.experiment_id, max_trials=4)


def test_what_an_oracle_grades_by_has_a_digest() -> None:
    """A judge's is of its model and rubric; what its name says whole has none."""
    asked = [("good", JUDGE_MODEL), ("good ", JUDGE_MODEL), ("bad", JUDGE_MODEL), ("good", "claude-opus-4-5")]
    digests = [digest_of(Judge(rubric, model=model)) for rubric, model in asked]
    assert digests[0] == digests[1]
    assert len({*digests}) == 3
    assert digest_of(GRADED) is None
    assert digest_of(lambda graded: True) is not None
    assert digest_of(eval("lambda graded: True")) is None


def test_a_journal_of_the_first_format_is_read_by_names(tmp_path: Path) -> None:
    """What was told by its place in a list has its flag's name; what was not given is not there."""
    settings = {
        "oracle": ["BOOKED", None, None, False, None, [None, None, None]],
        "change": [None, False, False, "/tmp/better.json", None, None],
        "how": {"mode": "auto"},
        "jobs": 1,
    }
    path = tmp_path / "old.jsonl"
    header = {
        "format": "tracefork blame journal 1",
        **dict.fromkeys(("experiment_id", "run_id", "tape_sha256", "change", "oracle"), "a" * 32),
        "parent_outcome": False,
        "budget_usd": None,
        "created_ns": 1,
        "plan": {"steps": 4, "max_trials": None},
        "settings": settings,
    }
    path.write_text(json.dumps(header) + "\n")
    assert journal.read(path)[0]["settings"] == {
        "oracle": {"success_re": "BOOKED"},
        "change": {"repair": "/tmp/better.json"},
        "how": {"mode": "auto"},
        "jobs": 1,
    }
    path.write_text(json.dumps({**header, "settings": {}}) + "\n")
    assert journal.read(path)[0]["settings"] == {}


@pytest.mark.parametrize(
    ("first", "says"),
    [
        ('{"format": "tracefork blame journal 3"}', "old.jsonl.*journal 3, is newer than 2.*upgrade"),
        ('{"format": "tracefork tape 1"}', "no journal of an experiment"),
        ('{"format": "tracefork blame journal x"}', "no journal of an experiment"),
        ("[]", "no journal of an experiment"),
    ],
)
def test_what_is_no_journal_that_can_be_read_is_named(tmp_path: Path, first: str, says: str) -> None:
    """A newer format, another file's and no JSON object are refused by the file's name."""
    path = tmp_path / "old.jsonl"
    path.write_text(first + "\n")
    with pytest.raises(TraceforkError, match=says):
        journal.read(path)


@pytest.mark.slow
def test_a_trial_that_was_lost_with_its_process_counts_as_spent(recorded: Callable[..., Run]) -> None:
    """A fork that is in the store but not in the journal is run again, and the budget knows of both.

    It is counted by the price that was given, which the store does not know.
    """
    run = recorded(4, cause=(1,))
    how: dict[str, Any] = {"oracle": GRADED, "change": BAD, "mode": "intervene", "agent": ask}
    how["price"] = [f"{MODEL}=70/70"]

    def interrupt(progress: Progress) -> None:
        if progress.forks == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tf.blame(run, **how, on_progress=interrupt)
    experiment_id = journal.find(run.store.path, "last")
    path = run.store.path / "blame" / f"{experiment_id}.journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    spent: list[float] = []
    run = open_store(run.store.path).run(run.run_id)
    result = tf.blame(
        run,
        **how,
        resume=experiment_id,
        on_progress=lambda progress: spent.append(progress.spent_usd),
    )
    lost = sum(one.cost_usd or 0.0 for one in journal.read(path)[1][:1])
    assert lost > 0
    assert spent[-1] == pytest.approx(result.cost_usd)
    assert result.header["lost_usd"] == pytest.approx(lost)
    with open_store(run.store.path) as store:
        assert verify(store, "last")[1] == []
        (row,) = store.rows("SELECT spent_usd, lost_usd, lost_unpriced FROM blame_experiments")
    assert row == {"spent_usd": result.cost_usd, "lost_usd": result.header["lost_usd"], "lost_unpriced": 0}


@pytest.mark.slow
def test_a_budget_ends_the_search_with_an_answer(recorded: Callable[..., Run]) -> None:
    """No trial starts beyond the budget; what was found so far is said and kept."""
    run = recorded(5, cause=(2,))
    result = tf.blame(run, oracle=GRADED, change=BAD, mode="intervene", agent=ask, budget_usd=0.02)
    assert result.findings.stop_reason == "budget"
    assert 0 < result.cost_usd <= 0.02
    assert result.findings.certified == ()
    assert verify(open_store(run.store.path), "last")[1] == []


@pytest.mark.slow
def test_verify_names_a_number_that_does_not_follow(recorded: Callable[..., Run]) -> None:
    """An effect that was tampered with is found by computing it from the trials."""
    run = recorded(4, cause=(1,))
    result = tf.blame(run, oracle=GRADED, change=BAD, mode="intervene", agent=ask)
    effects = tuple(dataclasses.replace(one, flips_treatment=9) for one in result.findings.effects)
    wrong = dataclasses.replace(result, findings=dataclasses.replace(result.findings, effects=effects))
    later = tuple(dataclasses.replace(one, ended_ns=one.ended_ns + 1) for one in result.trials)
    store = open_store(run.store.path)
    write_back(store, reconstruct(store, run), dataclasses.replace(wrong, trials=later))
    found = verify(open_store(run.store.path), result.experiment_id[:6])[1]
    assert "step 1 flips_treatment: stored 9" in "\n".join(found)


@pytest.mark.slow
def test_an_experiment_with_no_change_never_blames(recorded: Callable[..., Run]) -> None:
    """The recorded responses served again are nobody's fault, however noisy the agent."""
    run = recorded(4, cause=(1,), noise=0.2, seed=5)
    result = tf.blame(run, oracle=GRADED, change=changes.noop(), mode="intervene", agent=ask, max_trials=30)
    assert result.findings.certified == ()


def _oracle_error(graded: tf.Graded) -> bool:
    raise ValueError("no idea")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"budget_usd": 0.0}, "pays for no fork"),
        ({"budget_usd": float("nan")}, "a budget of nan is none"),
        ({"budget_usd": float("inf")}, "a budget of inf is none"),
        ({"oracle": tf.regex(success="NEVER", failure="EVER AND EVER")}, "cannot be graded"),
        ({"oracle": _oracle_error}, "no idea"),
        ({"change": Change(name="none", make=lambda tape, step: None)}, "fits no step"),
        ({"change": "Sorry"}, "'Sorry' is no edit"),
        ({"alpha": 2.0}, "alpha is 2.0"),
    ],
)
def test_bad_input_is_refused_and_leaves_no_experiment(
    recorded: Callable[..., Run], wanted: dict[str, object], says: str
) -> None:
    """A clear message, and nothing certified or half-kept."""
    run = recorded(3)
    given: dict[str, object] = {"oracle": GRADED, "change": BAD, "agent": ask, "mode": "intervene"}
    with pytest.raises(UsageError, match=says):
        tf.blame(run, **{**given, **wanted})  # type: ignore[arg-type]
    assert open_store(run.store.path).rows("select * from blame_experiments") == []
    assert list((run.store.path / "blame").glob("*")) == []


def test_a_run_of_one_step_has_nothing_to_blame(recorded: Callable[..., Run]) -> None:
    """Its one step is its output, and that is said."""
    with pytest.raises(UsageError, match="1 step"):
        tf.blame(recorded(1), oracle=GRADED, change=BAD, agent=ask)


@pytest.mark.slow
def test_without_a_network_nothing_is_certified(capture: Capture) -> None:
    """Forks that nobody answers are undefined, and the commonest reason is kept for the person."""
    with ModelServer(WORLD) as gone:
        capture.on()
        tracefork_otel.agent(ask)(gone.url, 3)
        capture.off()
    run = open_store(capture.store).run("last")
    result = tf.blame(run, oracle=GRADED, change=BAD, mode="intervene", agent=ask)
    assert result.findings.stop_reason == "aborted"
    assert result.findings.certified == ()
    assert result.problem is not None
    assert {one.undefined_reason for one in result.trials} == {"live_call"}


def test_an_agent_that_does_not_replay_is_not_admitted(recorded: Callable[..., Run]) -> None:
    """It stops before the first trial, as drift."""
    run = recorded(3)
    with pytest.raises(tracefork_otel.Drift):
        tf.blame(run, oracle=GRADED, change=BAD, agent=lambda url, steps: ask(url, 1) and ask(url, steps))


def test_an_oracle_that_does_not_end_is_given_up_on_the_recorded_run(recorded: Callable[..., Run]) -> None:
    """Before anything runs, after the time that a fork's would get."""

    def endless(shown: Graded) -> bool:
        while True:
            pass

    with pytest.raises(UsageError, match=r"endless did not end within 0\.2 s"):
        tf.blame(recorded(3), oracle=endless, change=BAD, agent=ask, timeout=0.2)


@pytest.mark.slow
def test_an_estimate_runs_nothing(recorded: Callable[..., Run], server: ModelServer) -> None:
    """Forks, dollars and the chance of a verdict, and no request."""
    run = recorded(5)
    server.requests.clear()
    found = estimate(run, change=BAD, mode="intervene", budget_usd=5.0)
    assert found.forks_median > 0
    assert found.cost_median > 0
    assert 0 < found.chance <= 1
    assert server.requests == []
