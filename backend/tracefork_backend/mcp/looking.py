"""The tools that only read."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from tracefork_otel.errors import UsageError

from ..spelling import counted, outcome_word, run_name
from .answers import cut, piece, rows

if TYPE_CHECKING:
    from ..store import Run, Store
    from ..store.listing import Wanted

# What reads the store is loaded by the first question: the server is to be there at once.

_SECONDS = 60.0
"""So long a question in SQL may take."""
_QUERY = 20_000
_SAYS = 300
"""Characters of a step's line."""
Ref = Annotated[str, Field(max_length=200, description="id, `last`, `last~1`")]
Offset = Annotated[int, Field(ge=0, le=10**9, description="next_offset")]
Step = Annotated[int, Field(ge=0, le=10**9)]


class Looking:
    """What may be asked of one store, whose file need not be there yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: Store | None = None
        self._lock = threading.Lock()

    @property
    def store(self) -> Store:
        """The store, as it is now; raises StoreError where there is none."""
        with self._lock:
            if self._opened is None:
                from ..store import open_store

                self._opened = open_store(self.path)
            return self._opened

    def close(self) -> None:
        """Let go of the store."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()

    def tools(self) -> list[Callable[..., str]]:
        """Return the tools, in the order in which they are of use."""
        return [self.list_runs, self.show_run, self.show_step, self.sql_query, self.diff]

    def list_runs(
        self,
        text: str = "",
        kind: Literal["", "record", "fork", "trial", "replay"] = "",
        outcome: Literal["", "success", "failure", "not graded"] = "",
        limit: Annotated[int, Field(ge=1, le=50)] = 10,
        offset: Offset = 0,
    ) -> str:
        """Runs, newest first. `text` stands in name, command or id; without `kind`: records and forks."""
        from ..store.listing import Wanted as Asked
        from ..store.listing import runs_listed

        wanted = Asked(text=text or None, kind=kind or None, outcome=outcome or None)
        found = runs_listed(self.store, wanted, limit=limit + 1, offset=offset)
        return rows(
            "runs",
            [_run_row(one) for one in found[:limit]],
            offset,
            more=len(found) > limit,
            note=None if found else self._nothing(wanted),
        )

    def _nothing(self, wanted: Wanted) -> str:
        if wanted.narrows or wanted.kind is not None:
            return "no run is like that"
        return f"no runs in {self.path.absolute()}: record one with `tracefork-otel run -- python agent.py`"

    def show_run(self, run: Ref = "last", offset: Offset = 0) -> str:
        """A run, one line a step: what the model answered or called, tokens, cost, and what went wrong."""
        found = self.store.run(run)
        (summary,) = self.store.ask("run_by_id", run_id=found.run_id)
        return rows("steps", self.steps(found)[offset:], offset, more=False, **self.summary(found, summary))

    def summary(self, found: Run, row: dict[str, Any]) -> dict[str, object]:
        """Return what is said of a run above its steps."""
        forked = self.store.forked(found.run_id)
        return {
            **_run_row(row),
            "command": row["command"] or row["entrypoint"],
            "fork_of": None if forked is None else forked.parent,
            "change": None if forked is None else forked.change,
            "problem": None if forked is None else forked.problem,
            "maybe_incomplete": "; ".join((*found.noted_reasons, *found.unseen)) or None,
        }

    def steps(self, found: Run) -> list[dict[str, Any]]:
        """Return a line for each step of a run."""
        from ..page.run import replies

        said = replies(self.store, found.run_id)
        return [
            _told(
                step=one["step"],
                model=one["model"],
                said=cut(said.get(one["step"], ""), _SAYS),
                url=None if one["model"] else one["url"],
                tokens=None if one["input_tokens"] is None else [one["input_tokens"], one["output_tokens"]],
                status=one["status_code"] if one["status_code"] != 200 else None,
                ended=one["outcome"] if one["outcome"] != "complete" else None,
                changed=one["intervention"],
                site=one.get("site"),
            )
            for one in self.store.ask("steps_of_run", run_id=found.run_id)
        ]

    def show_step(
        self,
        run: Ref,
        step: Step,
        show: Literal["new", "whole", "request", "response"] = "new",
        message: Annotated[
            int, Field(ge=-1, le=10**9, description="read one message whole, by its `at`")
        ] = -1,
        offset: Offset = 0,
    ) -> str:
        """One step: the messages that are `new` since the step before and the answer; all with `whole`;
        or the bodies as they went over the wire.
        """
        from ..page import step as steps
        from ..report.bodies import pretty

        found = self.store.run(run)
        named = {"run": run_name(found.run_id), "step": step}
        if message >= 0:
            messages = steps.messages_of(self.store, found, step)
            if message >= len(messages):
                raise UsageError(
                    f"step {step} has {counted(len(messages), 'message')}, none with `at` {message}"
                )
            return piece(messages[message].content, offset, **named, at=message)
        if show in ("request", "response"):
            body = steps.body_text(steps.exchange_at(self.store, found, step), response=show == "response")
            return piece(body, offset, **named)
        pane = steps.shown(self.store, found, step, "conversation")
        if not pane.is_model:
            exchange = steps.exchange_at(self.store, found, step)
            sides = [
                {"of": name, "text": steps.body_text(exchange, response=name == "response")}
                for name in ("request", "response")
            ]
            return rows(
                "bodies", sides[offset:], offset, more=False, **named, note="this step asked no model"
            )
        messages = steps.messages_of(self.store, found, step)
        first = pane.total - pane.new if show == "new" else 0
        told = [
            _told(
                at=at,
                role=one.role,
                kind=one.kind if one.kind != "text" else None,
                name=one.name,
                text=pretty(one.content.encode("utf-8", "backslashreplace"))
                if one.kind == "tool_use"
                else one.content,
            )
            for at, one in enumerate(messages)
            if at >= first
        ]
        return rows(
            "messages",
            told[offset:],
            offset,
            more=False,
            **named,
            model=pane.row["model"],
            earlier_messages=first or None,
            error=pane.error,
            damage=pane.damage,
            site=pane.row.get("site"),
        )

    def sql_query(
        self,
        query: Annotated[str, Field(max_length=_QUERY)],
        offset: Offset = 0,
    ) -> str:
        """One SELECT (DuckDB) over the views runs, exchanges, messages, bodies, tools, spans, forks, blame,
        trials. `describe exchanges` names columns; long texts are cut, substr() reads on.
        """
        store = self.store
        store.current()
        answer = store.answer(query, seconds=_SECONDS)
        found = [dict(zip(answer.columns, one, strict=True)) for one in answer.rows[offset:]]
        return rows("rows", found, offset, more=False, all_rows=len(answer.rows))

    def diff(
        self, a: Ref, b: Annotated[str, Field(description="none: a's parent")] = "", offset: Offset = 0
    ) -> str:
        """Two runs compared step by step: the first difference, what followed from it, outcome and cost."""
        from ..diffs.diff import diff as compare

        first = self.store.run(a)
        if b:
            second = self.store.run(b)
        elif first.parent_run_id is None:
            raise UsageError(f"run {run_name(first.run_id)} is no fork, so it has no parent: say b too")
        else:
            first, second = self.store.run(first.parent_run_id), first
        lines = [cut(line, 400) for line in compare(first, second).lines()]
        return rows("lines", lines[offset:], offset, more=False)


def _run_row(row: dict[str, Any]) -> dict[str, Any]:
    return _told(
        run=run_name(str(row["run_id"])),
        name=cut(str(row["name"] or ""), 120),
        kind=row["kind"],
        started=f"{row['started_at']:%Y-%m-%d %H:%M:%S}",
        steps=row["steps"],
        cost_usd=None if row["cost_usd"] is None else round(row["cost_usd"], 6),
        ended=outcome_word(row["outcome"], str(row["status"])),
    )


def _told(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "")}
