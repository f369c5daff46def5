"""Queries over a store of a million spans and a hundred thousand exchanges."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path

import duckdb
from filled import process, records, root
from report import Figure, least_cpu_ms, median_ms, report
from tracefork_backend.store import open_store
from workload import conversation

from tracefork_otel.store.records import SpanRecord
from tracefork_otel.store.sealing import seal_dead

BY_ID = "select * from {} where {} = $1"
RUNS, STEPS, SPANS = 10_000, 10, 90
PARTS = 20

AGGREGATES = {
    "tokens and cost per model and day": (
        "select model, date_trunc('day', started_at) as day, count(*), sum(input_tokens), sum(cost_usd) "
        "from exchanges group by all"
    ),
    "slowest services": "select service, count(*), avg(duration_ms), sum(cost_usd) from runs group by all",
    "95th percentile by span name": (
        "select name, count(*), approx_quantile(epoch_us(ended_at) - epoch_us(started_at), 0.95) from spans group by all"
    ),
}


def fill(folder: Path) -> str:
    bodies = list(conversation(STEPS, tool_bytes=0))
    wanted = ""
    for part in range(PARTS):
        wal = process(folder, rotate_bytes=1 << 40)
        for at in range(RUNS // PARTS):
            trace_id, parent = secrets.token_hex(16), secrets.token_hex(8)
            began = 1_780_000_000 * 10**9 + (part * RUNS // PARTS + at) * 60 * 10**9
            for seq, (request, response) in enumerate(bodies):
                for record in records(trace_id, parent, began + seq * 10**9, seq, request, response):
                    wal.append(record)
            for child in range(SPANS - 1):
                wal.append(
                    SpanRecord(
                        trace_id=trace_id, span_id=secrets.token_hex(8), parent_span_id=parent, kind="INTERNAL",
                        name=f"node_{child % 12}", started_ns=began + child * 10**7,
                        ended_ns=began + child * 10**7 + (child * 7919) % 10**7, service="agent",
                        scope="user", attributes={"node": child % 12, "attempt": 1},
                    )
                )  # fmt: skip
            wal.append(root(trace_id, parent, ended=True, at=began))
            if (part, at) == (PARTS // 3, 17):
                wanted = trace_id
        wal.close()
        seal_dead(folder)
    return wanted


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "store"
        run_id = fill(folder)
        with open_store(folder) as store:
            guarded = least_cpu_ms(lambda: store.rows(BY_ID.format("exchanges", "run_id"), [run_id]))
        with duckdb.connect() as plain:
            plain.execute((folder / "views.sql").read_text())

            def ask(query: str, *values: str) -> list[tuple]:
                return plain.execute(query, values).fetchall()

            assert ask("select count(*) from spans") == [(RUNS * (STEPS + SPANS),)]
            by_id = median_ms(lambda: ask(BY_ID.format("exchanges", "run_id"), run_id))
            spans = median_ms(lambda: ask(BY_ID.format("spans", "trace_id"), run_id))
            figures = [
                Figure("one run's exchanges by id, 1M spans in 20 segments", by_id, "ms", 10),
                Figure("the same through `Store.rows`, processor time", guarded, "ms", 10),
                Figure("one run's spans by id, 1M spans in 20 segments", spans, "ms", 10),
                *(
                    Figure(what, median_ms(lambda query=query: ask(query), 5), "ms", 150)
                    for what, query in AGGREGATES.items()
                ),
            ]
    report("query", figures)


if __name__ == "__main__":
    main()
