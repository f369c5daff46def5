"""A store with odd records in it: every question is answered, and `doctor` names what was left out."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from tracefork_backend import cli
from tracefork_backend.store import doctor, open_store
from wal_forged import SPAN, START, forged, frame, header_of, odd_records, whole

from tracefork_otel.store import wal

VIEWS = ("runs", "exchanges", "spans", "messages", "bodies", "tools", "draws", "forks", "experiments")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("live", [False, True])
@settings(deadline=None, max_examples=30)
@given(odd_records())
def test_no_record_ends_a_question(live: bool, records: list[bytes]) -> None:
    """Whatever one record holds, live or sealed: all views are read, and the good exchange is among them."""
    ask_everything(records, live)


UNFILTERED = dict.fromkeys(("kind", "status", "outcome", "since", "before", "text", "model"))


def ask_everything(records: list[bytes], live: bool) -> None:
    """Every view is read, every run listed, every file looked at."""
    with TemporaryDirectory() as name:
        path = forged(Path(name), [*records, *whole()])
        held = wal.take(path) if live else None
        try:
            with open_store(name) as store:
                known = {row["view_name"] for row in store.rows("SELECT view_name FROM duckdb_views()")}
                for view in VIEWS:
                    if view in known:
                        store.rows(f"SELECT * FROM {view}")
                found = store.rows("SELECT span_id FROM exchanges")
                assert {"span_id": START.span_id} in found
                for row in store.ask("runs_listed", every=True, limit=20, offset=0, **UNFILTERED):
                    store.exchanges(str(row["run_id"]))
            doctor(name)
        finally:
            if held is not None:
                wal.let_go(held)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("live", [False, True])
@settings(deadline=None, max_examples=20)
@given(odd_records())
def test_no_record_ends_a_command(live: bool, records: list[bytes]) -> None:
    """Whatever one record holds, live or sealed, each command that reads ends with an answer."""
    type_everything(records, live)


def type_everything(records: list[bytes], live: bool) -> None:
    """Each command that reads is typed."""
    with TemporaryDirectory() as name:
        path = forged(Path(name), [*records, *whole()])
        held = wal.take(path) if live else None
        try:
            for words in COMMANDS:
                assert cli._run([*words, "--store", name]) in (0, 1, 2), words
        finally:
            if held is not None:
                wal.let_go(held)


COMMANDS = (
    ["ls", "--json"],
    ["show", START.trace_id],
    ["show", f"{START.trace_id}@0"],
    ["show", f"{START.trace_id}@0", "--json"],
    ["sql", "select * from spans"],
    ["doctor"],
)


def test_doctor_names_what_was_left_out(tmp_path: Path) -> None:
    """A value that its column cannot hold is named with run and field, and the store is healthy."""
    header, _ = header_of(SPAN)
    forged(tmp_path, [frame(header | {"started_ns": 2**70}), *whole()])
    report = doctor(tmp_path)
    assert report.odd == (
        f"run {SPAN.trace_id[:8]}: 1 value of started_ns left out, for its column cannot hold {2**70}",
    )
    assert report.healthy
    assert f"odd: {report.odd[0]}" in report.lines()
