"""A journal is a file that anybody may write: what it says to run is asked about."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from tracefork_backend.blaming import journal
from tracefork_backend.blaming.trials import TrialRequest
from tracefork_backend.blaming.verifying import stored_tables
from tracefork_backend.cli.flags.blame import SearchFlags
from tracefork_backend.rerun.trust import NotTrusted
from tracefork_backend.store import open_store

from tracefork_otel.errors import UsageError

EXPERIMENT = "00f00ce68b1771d6"
HEADER: dict[str, Any] = {
    "run_id": "ab" * 16,
    "tape_sha256": "0" * 64,
    "parent_outcome": False,
    "change": "resample",
    "oracle": "regex success=/OK/",
    "budget_usd": None,
    "created_ns": 1,
    "coupling": "fresh",
    "plan": {
        "steps": 4,
        "mode": "fixed",
        "blocked": [],
        "costs": [1.0],
        "alpha": 0.05,
        "max_trials": None,
        "k": 2,
    },
    "settings": {
        "oracle": {"success_re": "OK"},
        "change": {"resample": True},
        "how": {"mode": "fixed", "k": 2, "agent": "pkg:agent", "ignore": ["a"], "timeout": 600.0},
        "jobs": 1,
    },
}


def test_an_experiment_that_was_begun_here_goes_on(tmp_path: Path) -> None:
    """Its mark is of what it runs, of its run and of its id; limits may change."""
    made = journal.Journal(tmp_path, EXPERIMENT, HEADER)
    made.limit(5.0, 7)
    made.close()
    header, _, _ = journal.read(made.path)
    journal.check_from_here(header, journal.settings_of(header, made.path), trust=False)
    for what in (
        {"settings": {**HEADER["settings"], "how": {"agent": "os:system"}}},
        {"settings": {**HEADER["settings"], "oracle": {"oracle": "os:system"}}},
        {"run_id": "ef" * 16},
        {"mark": None},
    ):
        changed = {**header, **what}
        settings = journal.settings_of(changed, made.path)
        with pytest.raises(NotTrusted) as seen:
            journal.check_from_here(changed, settings, trust=False)
        assert "--trust" in str(seen.value).splitlines()[-1]
        journal.check_from_here(changed, settings, trust=True)
    with pytest.raises(NotTrusted, match=r"agent +pkg:agent"):
        journal.check_from_here({**header, "experiment_id": "1" * 16}, HEADER["settings"], trust=False)


def test_what_has_not_ended_is_no_answer_and_says_how_to_go_on(tmp_path: Path) -> None:
    """`last` is it too: an older experiment is not shown in its place."""
    journal.Journal(tmp_path, EXPERIMENT, HEADER).close()
    for name in ("last", EXPERIMENT, EXPERIMENT[:6]):
        with pytest.raises(UsageError, match=r"has not ended, after 0 forks: .*blame resume 00f00ce6"):
            stored_tables(open_store(tmp_path), name)


def test_a_journal_does_not_say_that_it_is_trusted(tmp_path: Path) -> None:
    """What stands there as `trust` is no setting of an experiment."""
    how = {"agent": "a:b", "trust": True, "store": "x"}
    read = journal.settings_of({**HEADER, "settings": {**HEADER["settings"], "how": how}}, tmp_path)
    assert read["how"] == {"agent": "a:b"}


def test_a_trial_counts_with_what_was_booked_for_it(tmp_path: Path) -> None:
    """Its grading at what it cost, calls without a price at what was set aside; older journals lack both."""
    request = TrialRequest(
        trial_id="keep:0#0",
        arm_id="keep:0",
        role="control",
        steps=(0,),
        altered=(),
        kept=1,
        replicate=0,
        phase="fixed",
    )
    told: dict[str, Any] = {
        "seq": 0,
        "run_id": "ab" * 16,
        "tail_sha256": "",
        "calls_live": 1,
        "cost_usd": 0.1,
    }
    told |= {"started_ns": 1, "ended_ns": 2}
    new = journal.record_of(
        request, outcome=True, parent=True, why=None, grading_usd=0.02, booked_usd=0.4, **told
    )
    old = journal.record_of(request, outcome=True, parent=True, why=None, **told)
    told_all = replace(new, unpriced=2, calls_memo=3, undefined_reason="why", tail_sha256="ab", steps=(0, 1))
    made = journal.Journal(tmp_path, EXPERIMENT, HEADER)
    made.append(told_all)
    assert journal.read(made.path)[1] == [told_all]
    made.close()
    made.path.unlink()
    made = journal.Journal(tmp_path, EXPERIMENT, HEADER)
    made.append(new)
    made.append(old)
    made.close()
    text = made.path.read_text().replace(', "grading_usd": null, "booked_usd": null, "unpriced": null', "")
    assert "null}" not in text.splitlines()[-1]
    made.path.write_text(text)
    _, trials, _ = journal.read(made.path)
    assert [one.counts_usd(0.3) for one in trials] == pytest.approx([0.42, 0.4])


FULL = """
import resource, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_blame_journal import EXPERIMENT, HEADER
from tracefork_backend.blaming.journal import Journal
from tracefork_otel.errors import StoreError
store = Path(sys.argv[1])
made = Journal(store, EXPERIMENT, HEADER)
size = made.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 9, resource.RLIM_INFINITY))
try:
    made.limit(5.0, 7)
except StoreError as error:
    print(error)
print(made.path.stat().st_size == size)
resource.setrlimit(resource.RLIMIT_FSIZE, (9, resource.RLIM_INFINITY))
try:
    Journal(store, "1" * 16, HEADER)
except StoreError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
made.limit(5.0, 7)
"""


@pytest.mark.slow
def test_a_journal_that_finds_no_room_has_no_half_lines(tmp_path: Path) -> None:
    """It says so and goes on once there is room; one that could not begin is not there."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), *paths],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    limited, same, unbegun = done.stdout.splitlines()
    assert ("cannot be written" in limited, same, "cannot be written" in unbegun) == (True, "True", True)
    assert journal.experiments(tmp_path) == [EXPERIMENT]
    header, _, _ = journal.read(journal.path_of(tmp_path, EXPERIMENT))
    assert header["budget_usd"] == 5.0


def test_every_flag_of_a_search_is_kept(tmp_path: Path) -> None:
    """An experiment that is gone on with is searched as it was begun."""
    how = asdict(SearchFlags(every=True, k=3, max_trials=9))
    header = {**HEADER, "settings": {**HEADER["settings"], "how": how}}
    assert journal.settings_of(header, tmp_path)["how"] == how
