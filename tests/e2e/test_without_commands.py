"""An agent recorded by its one line, and read by plain DuckDB, with no command of ours in between."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from e2e.command import BARE, EXAMPLES, environment, here

ONE_LINE = "from tracefork_otel import TraceforkInstrumentor; TraceforkInstrumentor().instrument()\n"
BOOKING = str(EXAMPLES / "booking_agent.py")
RUN = f"import runpy, sys\nsys.argv = ['agent']\nrunpy.run_path({BOOKING!r}, run_name='__main__')\n"
BIN = Path(sys.executable).parent


def run(*command: str | Path, cwd: Path, **extra: str) -> str:
    """What the command prints on both streams; it must end with status 0."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment(**BARE, **extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
def test_one_line_then_plain_duckdb(tmp_path: Path) -> None:
    """The run is sealed when the agent ends: views.sql alone shows it, model and all."""
    (tmp_path / "agent.py").write_text(ONE_LINE + RUN)
    assert "BOOKED" in run(sys.executable, "agent.py", cwd=tmp_path)
    with duckdb.connect() as plain:
        plain.execute((tmp_path / ".tracefork" / "views.sql").read_text())
        assert plain.execute("select count(*), min(model) from exchanges").fetchone() == (
            5,
            "claude-sonnet-5",
        )
        assert plain.execute("select steps, status from runs").fetchall() == [(5, "ok")]
    assert not list((tmp_path / ".tracefork" / "wal").glob("*.wal"))
    done = here("replay", "last", cwd=tmp_path, **BARE)
    assert done.status == 0, done.out + done.err


@pytest.mark.slow
def test_no_line_under_opentelemetry_instrument(tmp_path: Path) -> None:
    """`opentelemetry-instrument python agent.py` records without a line in the agent."""
    (tmp_path / "agent.py").write_text(RUN)
    exporters = {
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
    }
    run(BIN / "opentelemetry-instrument", sys.executable, "agent.py", cwd=tmp_path, **exporters)
    # The SDK's own spans are recorded here, and no span is around them: each call is a trace of its own.
    found = here("ls", "--json", cwd=tmp_path).rows
    assert sum(run["steps"] for run in found) == 5
    assert all(run["complete"] for run in found)


@pytest.mark.slow
@pytest.mark.parametrize("exporter", ["tracefork", "tracefork,console"])
def test_the_exporter_by_name(tmp_path: Path, exporter: str) -> None:
    """`OTEL_TRACES_EXPORTER=tracefork` stores each span once, beside other exporters too."""
    (tmp_path / "agent.py").write_text(RUN)
    others = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    printed = run(
        BIN / "opentelemetry-instrument", sys.executable, "agent.py",
        cwd=tmp_path, OTEL_TRACES_EXPORTER=exporter, **others,
    )  # fmt: skip
    assert ("chat claude-sonnet-5" in printed) == ("console" in exporter)
    assert sum(run["steps"] for run in here("ls", "--json", cwd=tmp_path).rows) == 5
    spans = here(
        "sql", "select count(*) as n, count(distinct span_id) as ids from spans", "--json", cwd=tmp_path
    )
    (counted,) = spans.rows
    assert counted["n"] == counted["ids"] > 5
