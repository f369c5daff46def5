"""The issue's own commands, typed against recorded runs of the examples."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import duckdb
import pytest
from e2e.command import BARE, EXAMPLES, here, tracefork

BOOKING = EXAMPLES / "booking_agent.py"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose store holds a booking that succeeded and then one that failed."""
    folder = tmp_path_factory.mktemp("recorded")
    for city in ("Tokyo", "Osaka"):
        done = tracefork("run", "--", sys.executable, BOOKING, "--city", city, cwd=folder, **BARE)
        assert done.status == 0, done.err
        assert "5 steps" in done.err
    return folder


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    """A copy of that folder, for a test that changes it."""
    return Path(shutil.copytree(recorded, tmp_path / "copy"))


@pytest.mark.slow
def test_run_leaves_the_agents_output_alone(tmp_path: Path) -> None:
    """What the agent prints is on stdout untouched; our one line is on stderr."""
    done = tracefork("run", "--", sys.executable, BOOKING, cwd=tmp_path, **BARE)
    assert done.out == (
        "BOOKED flight JL42 to Tokyo on 2026-11-03, reference TF-JL42-03. Have a good trip!\n"
    )
    assert done.err.count("\n") == 1


def test_run_keeps_the_commands_exit_status(tmp_path: Path) -> None:
    """An agent's own status is the command's, after its exchanges were recorded."""
    agent = tmp_path / "agent.py"
    agent.write_text(
        f"import runpy\nrunpy.run_path({str(BOOKING)!r}, run_name='__main__')\nraise SystemExit(7)\n"
    )
    done = tracefork("run", "--", sys.executable, agent, cwd=tmp_path, **BARE)
    assert (done.status, "5 steps" in done.err) == (7, True)


def test_ls_lists_newest_first(recorded: Path) -> None:
    """Both runs are listed with steps, tokens and cost, the failing one first."""
    rows = here("ls", "--json", cwd=recorded).rows
    assert [row["steps"] for row in rows] == [5, 5]
    assert rows[0]["started_at"] > rows[1]["started_at"]
    assert all(row["cost_usd"] > 0 and row["complete"] for row in rows)
    table = here("ls", cwd=recorded)
    assert rows[0]["run_id"][:8] in table.out


def test_show_a_run_and_a_step(recorded: Path) -> None:
    """A run shows what each step answered; a step shows both bodies readable."""
    run = here("show", "last", cwd=recorded)
    assert 'check_seats({"flight":"JL60","date":"2026-11-04"})' in run.out
    assert "5 of 5 exchanges whole" in run.out
    step = here("show", "last@2", cwd=recorded)
    assert '"content": "Please book a flight to Osaka on 2026-11-03."' in step.out
    assert "event: content_block_delta" in step.out
    assert "x-api-key: REDACTED" in step.out


def test_show_json_holds_the_bodies(recorded: Path) -> None:
    """`--json` gives a step's bodies and headers to machines."""
    (step,) = here("show", "last~1@4", "--json", cwd=recorded).rows
    assert step["status_code"] == 200
    assert "BOOKED" in step["response"].replace('"}}', "") or "BOO" in step["response"]


def test_replay_is_bit_exact_without_the_server(recorded: Path) -> None:
    """The receipt counts five of five, equal digests, PASS, and the status is 0."""
    done = here("replay", "last", cwd=recorded, **BARE)
    assert done.status == 0, done.out + done.err
    assert "5 of 5 exchanges served from the tape" in done.out
    assert "PASS" in done.out


@pytest.mark.slow
def test_replay_leaves_last_alone(folder: Path) -> None:
    """A replay is a run of the store, and `last` still means the recording."""
    before = here("ls", "--json", cwd=folder).rows
    every = here("ls", "--all", "--json", cwd=folder).rows
    here("replay", "last", cwd=folder, **BARE)
    assert here("ls", "--json", cwd=folder).rows == before
    newest, *others = here("ls", "--all", "--json", cwd=folder).rows
    assert (newest["kind"], others) == ("replay", every)


@pytest.mark.slow
def test_replay_explains_a_changed_prompt(folder: Path) -> None:
    """A changed system prompt drifts at step 0, with path, both values, cause, and status 1."""
    agent = folder / "agent.py"
    agent.write_text(BOOKING.read_text())
    assert tracefork("run", "--", sys.executable, "agent.py", cwd=folder, **BARE).status == 0
    agent.write_text(
        BOOKING.read_text().replace("You are a travel agent.", "You are a careful travel agent.")
    )
    done = here("replay", "last", cwd=folder, **BARE)
    assert done.status == 1, done.out + done.err
    for part in ("step 0", "system", "You are a travel agent.", "careful", "prompt", "FAIL"):
        assert part in done.out, done.out


def test_verify_is_a_gate(folder: Path) -> None:
    """`verify` takes runs and tape files; a tampered tape is named and fails the gate."""
    exported = here("tape", "export", "last", "-o", "good.jsonl", cwd=folder)
    assert exported.status == 0, exported.err
    passed = here("verify", "last", "good.jsonl", cwd=folder, **BARE)
    assert passed.status == 0, passed.out + passed.err
    assert passed.out.count("PASS") == 2
    bad = folder / "bad.jsonl"
    bad.write_text((folder / "good.jsonl").read_text().replace("Osaka", "Kyoto", 1))
    failed = here("verify", "good.jsonl", "bad.jsonl", cwd=folder, **BARE)
    assert failed.status == 2
    assert "PASS  good.jsonl" in failed.out
    assert "FAIL  bad.jsonl" in failed.out


def test_sql_reads_the_issues_query(recorded: Path) -> None:
    """The README's query gives one row a step, with model, tokens and cost."""
    query = (
        "select step, model, input_tokens, cost_usd from exchanges "
        "where run_id = (select run_id from runs where kind = 'record' order by started_at desc limit 1) "
        "order by step"
    )
    rows = here("sql", query, "--json", cwd=recorded).rows
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert all(row["model"] == "claude-sonnet-5" and row["cost_usd"] > 0 for row in rows)
    assert here("sql", query, "--csv", cwd=recorded).out.startswith("step,model,input_tokens,cost_usd")


def test_plain_duckdb_reads_views_sql(recorded: Path) -> None:
    """Any DuckDB that runs views.sql sees the same rows as we do."""
    ours = here("sql", "select run_id, steps, cost_usd from runs order by 1", "--json", cwd=recorded).rows
    with duckdb.connect() as plain:
        plain.execute((recorded / ".tracefork" / "views.sql").read_text())
        theirs = plain.execute("select run_id, steps, cost_usd from runs order by 1").fetchall()
    assert [tuple(row.values()) for row in ours] == theirs


@pytest.mark.parametrize(
    "query",
    [
        "create table x (i int)",
        "copy (select 1) to 'out.csv'",
        "select * from read_csv('/etc/passwd')",
        "select * from read_text('/etc/passwd')",
        "install httpfs",
        "load httpfs",
        "attach 'x.db'",
        "set enable_external_access = true",
        "select 1; drop view runs",
        "select getenv('HOME')",
    ],
)
def test_sql_refuses_what_is_no_reading(recorded: Path, query: str) -> None:
    """SQL that writes, reads files, loads extensions or settings is refused with status 2."""
    done = here("sql", query, cwd=recorded)
    done.refused()


@pytest.mark.slow
def test_tape_goes_to_another_store_and_replays_there(recorded: Path, tmp_path: Path) -> None:
    """An exported tape, imported elsewhere, is the same run: same rows, and it replays."""
    tape = tmp_path / "t.jsonl"
    assert here("tape", "export", "last", "-o", tape, cwd=recorded).status == 0
    done = here("tape", "import", tape, cwd=tmp_path)
    assert done.status == 0, done.err
    query = "select run_id, step, request_sha256, response_sha256, outcome from exchanges order by 1, 2"
    there = here("sql", query, "--json", cwd=tmp_path).rows
    ours = here("sql", query, "--json", cwd=recorded).rows
    assert len(there) == 5
    assert all(row in ours for row in there)
    assert here("replay", "last", cwd=tmp_path, **BARE).status == 0
    again = here("tape", "import", tape, cwd=tmp_path)
    assert (again.status, "already" in again.out) == (0, True)


def test_a_tape_file_is_exported_like_the_run_it_is_of(recorded: Path, tmp_path: Path) -> None:
    """Where a command takes a run it takes a tape file, without any store."""
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    assert here("tape", "export", "last", "-o", first, cwd=recorded).status == 0
    again = here("tape", "export", first, "-o", second, cwd=tmp_path)
    assert again.status == 0, again.err
    assert second.read_bytes() == first.read_bytes()


def test_doctor_finds_a_healthy_store_healthy_and_names_a_damaged_file(folder: Path) -> None:
    """A whole store is status 0; a truncated segment is named, status 1, and the other runs stay readable."""
    assert here("doctor", cwd=folder).status == 0
    segments = sorted(
        (folder / ".tracefork" / "segments").glob("*.chunks.parquet"), key=lambda p: p.stat().st_size
    )
    damaged = segments[-1]
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    done = here("doctor", cwd=folder)
    assert done.status == 1
    assert damaged.name in done.out
    assert len(here("ls", "--json", cwd=folder).rows) >= 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "abcdef99"], "abcdef99"),
        (["show", "last@17"], "steps 0 to 4"),
        (["show", "last~40"], "last~40"),
        (["show", "last@x"], "last@x"),
        (["replay", "nowhere"], "nowhere"),
        (["replay", "last", "--match", "fuzzy"], "exact or json"),
        (["replay", "last", "--ignore", "messages[["], "messages[["),
        (["replay", "last", "--agent", "nocolon"], "nocolon"),
        (["tape", "import", "missing.jsonl"], "missing.jsonl"),
        (["sql", "select nope from runs"], "nope"),
        (["sql", ""], "SELECT"),
        (["run"], "run -- python agent.py"),
        (["run", "--", "no-such-program"], "no-such-program"),
        (["frobnicate"], "frobnicate"),
        (["ls", "--limit", "x"], "--limit"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(recorded: Path, arguments: list[str], says: str) -> None:
    """Wrong references, flags and values end with status 2 or 3 and one line that names them."""
    here(*arguments, cwd=recorded).refused(says)


def test_verify_names_what_it_cannot_find(recorded: Path) -> None:
    """A file that is not there fails the gate with status 2."""
    done = here("verify", "missing.jsonl", cwd=recorded)
    assert (done.status, "missing.jsonl" in done.out) == (2, True)


def test_an_agent_that_cannot_be_imported_shows_its_own_error(recorded: Path) -> None:
    """`--agent` naming no module ends with status 3 and the import's own error."""
    done = here("replay", "last", "--agent", "no.such:fn", cwd=recorded, **BARE)
    assert done.status == 3
    assert "No module named 'no'" in done.err


def test_unknown_run_lists_near_ones(recorded: Path) -> None:
    """A prefix with one wrong digit is answered with the runs that come near."""
    run_id = here("ls", "--json", cwd=recorded).rows[0]["run_id"]
    wrong = run_id[:7] + ("0" if run_id[7] != "0" else "1")
    done = here("show", wrong, cwd=recorded)
    assert done.status == 2
    assert run_id[:8] in done.err


def test_an_empty_folder_says_how_to_begin(tmp_path: Path) -> None:
    """Without a store, `ls` says how to record and `show` is a usage error, neither creates anything odd."""
    done = here("ls", cwd=tmp_path)
    assert (done.status, "tracefork-otel run" in done.err) == (0, True)
    assert here("show", "last", cwd=tmp_path).status == 2


@pytest.mark.parametrize(
    ("flags", "says"),
    [(["-I"], "-I"), (["-E"], "-E")],
)
def test_an_isolated_interpreter_is_said(tmp_path: Path, flags: list[str], says: str) -> None:
    """`python -I` ignores our start: nothing captured, why, and status 3."""
    done = tracefork("run", "--", sys.executable, *flags, "-c", "print('hello')", cwd=tmp_path)
    assert done.status == 3
    assert says in done.err
    assert done.out == "hello\n"


def test_an_agent_without_model_calls_is_said(tmp_path: Path) -> None:
    """A Python program that calls no model is recorded as nothing captured, with status 3."""
    done = tracefork("run", "--", sys.executable, "-c", "print('hello')", cwd=tmp_path)
    assert done.status == 3
    assert "nothing" in done.err


@pytest.mark.slow
def test_a_hanging_agent_ends_at_the_time_limit(folder: Path) -> None:
    """A replay whose agent hangs ends at --timeout with status 3 and says so."""
    agent = folder / "agent.py"
    agent.write_text(BOOKING.read_text())
    assert tracefork("run", "--", sys.executable, "agent.py", cwd=folder, **BARE).status == 0
    agent.write_text("import time\ntime.sleep(60)\n")
    done = here("replay", "last", "--timeout", "2", cwd=folder, **BARE)
    assert done.status == 3, done.out + done.err
    assert "2" in done.err


@pytest.mark.slow
def test_a_crashing_agent_shows_its_own_error_once(folder: Path) -> None:
    """A replay whose agent crashes says agent_error and shows its last line once."""
    agent = folder / "agent.py"
    agent.write_text(BOOKING.read_text())
    assert tracefork("run", "--", sys.executable, "agent.py", cwd=folder, **BARE).status == 0
    agent.write_text("raise RuntimeError('broken on purpose')\n")
    done = here("replay", "last", cwd=folder, **BARE)
    assert done.status in (1, 3), done.out + done.err
    assert (done.out + done.err).count("RuntimeError: broken on purpose") == 1


def test_a_read_only_store_is_still_read(recorded: Path) -> None:
    """A store that cannot be written is read by ls, show and sql."""
    store = recorded / ".tracefork"
    if os.geteuid() == 0:
        pytest.skip("root writes into any folder")
    store.chmod(0o500)
    try:
        assert here("show", "last", cwd=recorded).status == 0
    finally:
        store.chmod(0o700)


@pytest.mark.slow
def test_secrets_are_not_in_the_store(tmp_path: Path) -> None:
    """A key of the environment is nowhere in the store's files, and only their owner can read them."""
    key = "sk-ant-very-secret-0123456789"
    done = tracefork("run", "--", sys.executable, BOOKING, cwd=tmp_path, SOME_API_KEY=key, **BARE)
    assert done.status == 0
    files = [path for path in (tmp_path / ".tracefork").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if key.encode() in path.read_bytes()]
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o600"}
    environment = here("sql", "select attributes from spans", "--json", cwd=tmp_path).out
    assert key not in environment
    assert "SOME_API_KEY" in environment
