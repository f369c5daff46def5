"""A search for repairs written back as spans: a trace of its own, and a note in the trace of its run."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from tracefork_otel.tape.tape import Tape

from ..blaming.writing import roots_of, trial_links, write_arms
from ..store import Store
from ..writeback.names import REPAIR, REPAIR_NOTE
from ..writeback.spans import WriteBack, link
from .result import RepairResult


def write_back(
    store: Store, tape: Tape, result: RepairResult, *, roots: Mapping[str, str], root_of_parent: str | None
) -> None:
    """Write the search with its trials and candidates as a trace, and each confirmed repair as a note.

    `roots` are the root spans of its trials by their runs, `root_of_parent` that of the recorded run.
    """
    roots = roots_of(store, result.repair_id, result.trials, roots)
    now = time.time_ns()
    ends = [one.ended_ns for one in result.trials] or [now]
    starts = [one.started_ns for one in result.trials] or ends
    told = {"tracefork.experiment.id": result.repair_id, "tracefork.parent.run_id": result.run_id}
    with WriteBack(store.path) as spans:
        root = spans.span(
            name=REPAIR.format(name=tape.name),
            attributes={
                **told,
                "tracefork.repair.search": _json(result.search_row()),
                "tracefork.repair.finding": result.message,
            },
            started_ns=min(starts),
            ended_ns=max(ends),
            links=[] if root_of_parent is None else [link(result.run_id, root_of_parent, "parent")],
        )
        write_arms(spans, root, roots, result.repair_id, result.trials)
        for number, row in enumerate(result.rows()):
            spans.span(
                name=f"candidate {row['step']} {row['verdict']}",
                attributes={**told, "tracefork.repair.candidate": _json(row)},
                started_ns=max(ends),
                ended_ns=max(ends),
                parent=root,
            )
            if row["verdict"] != "confirmed":
                continue
            fresh = [one for one in result.trials if one.arm_id == result.fresh_arm(number)]
            shown = {f"tracefork.repair.{name}": value for name, value in row.items()}
            spans.note(
                exchange=tape.exchanges[row["step"]],
                name=REPAIR_NOTE.format(verdict=row["verdict"]),
                links=[link(root.trace_id, root.span_id, "fork"), *trial_links(roots, fresh)],
                attributes={**told, **shown, "tracefork.repair.oracle": result.header["oracle"]},
            )


def _json(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False)
