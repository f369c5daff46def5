"""A call that two instrumentations saw, a framework's and an SDK's: received as two spans, it is one step."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored import asked
from told import RUN, chat, ours, plain, received
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.store import open_store

from tracefork_otel.store.records import SpanRecord

OTHER = "cd" * 16


def steps(store: Path) -> list[tuple[str, int | None]]:
    """Span and tokens of each step, as the view has them; as the run itself has them too."""
    with open_store(store) as opened:
        rows = opened.rows(
            "SELECT span_id, input_tokens FROM exchanges WHERE run_id = $run ORDER BY step", {"run": RUN}
        )
        if rows:
            run = opened.run(RUN)
            assert [one.span_id for one in run.exchanges] == [row["span_id"] for row in rows]
            assert run.steps == len(rows)
            assert run.input_tokens == sum(row["input_tokens"] or 0 for row in rows)
    return [(row["span_id"], row["input_tokens"]) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spans", "left"),
    [
        ([chat(1, None), chat(2, 1)], {2: 100}),
        ([chat(1, None), plain(2, 1), plain(3, 2), chat(4, 3)], {4: 100}),
        ([chat(1, None), chat(2, 1), chat(3, 2)], {3: 100}),
        ([chat(1, None, 30), chat(2, 1, 10), chat(3, 1, 20)], {2: 10, 3: 20}),
        ([plain(1, None), chat(2, 1), chat(3, 1)], {2: 100, 3: 100}),
        ([chat(1, None), ours(2, 1)], {2: 7}),
        ([chat(1, 1), chat(2, 9)], {1: 100, 2: 100}),
        ([chat(1, None), chat(2, 1, trace_id=OTHER)], {1: 100}),
    ],
    ids=["two", "with spans between", "three", "retries", "siblings", "ours", "odd parents", "another trace"],
)
def test_the_innermost_is_the_step(tmp_path: Path, spans: list[SpanRecord], left: dict[int, int]) -> None:
    """In whatever order the spans come, live and sealed; all of them stay spans."""
    expected = [(f"{number:016x}", tokens) for number, tokens in left.items()]
    for name, order in ("forth", spans), ("back", spans[::-1]):
        store = tmp_path / name
        received(store, order)
        assert steps(store) == expected
        with open_store(store) as opened:
            opened.compact()
            assert opened.rows("SELECT count(*) AS n FROM spans") == [{"n": len(spans)}]
        assert steps(store) == expected


def test_ours_below_a_frameworks_span_can_be_replayed(tmp_path: Path) -> None:
    """The whole bodies are there, and the messages of the span around them are in nobody's way."""
    received(tmp_path, [chat(1, None)], [ours(2, 1)])
    with open_store(tmp_path) as store:
        tape = reconstruct(store, store.run(RUN))
    assert [one.request.body for one in tape.exchanges] == [asked("hi")]


def test_spans_that_are_each_others_parents_hold_nothing_up(tmp_path: Path) -> None:
    """No question of the store hangs or fails."""
    received(tmp_path, [chat(1, 2), chat(2, 1), plain(3, 4), plain(4, 3), chat(5, 4)])
    assert ("0000000000000005", 100) in steps(tmp_path)
