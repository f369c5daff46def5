"""A run of the store, and the ways to name one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Exchange
from tracefork_otel.store.records import Note
from tracefork_otel.tape.start import HowStarted

if TYPE_CHECKING:
    from .store import Store

Kind: TypeAlias = Literal["record", "replay", "fork", "trial"]
MIN_PREFIX = 6
"""Fewer digits than this name no run: they would name another one tomorrow."""
_LAST = re.compile(r"last(?:~(\d+))?")
_PREFIX = re.compile(r"[0-9a-f]{1,32}")


def parse_ref(ref: str) -> tuple[str, int | None]:
    """The run's name and the step in `NAME` or `NAME@STEP`; raises UsageError if the step is no number."""
    name, at, step = ref.rpartition("@")
    if not at:
        return ref, None
    if not name or not step.isdecimal():
        raise UsageError(f"{ref!r} names no step: write RUN@STEP with a number, such as last@3")
    return name, int(step)


def back_of(name: str) -> int | None:
    """How many runs before the last one `last` or `last~N` means, None for other names."""
    found = _LAST.fullmatch(name)
    return int(found[1] or 0) if found else None


def prefix_of(name: str) -> str | None:
    """The name as the beginning of a run's id, None if it cannot be one."""
    text = name.lower()
    return text if _PREFIX.fullmatch(text) else None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: what the `runs` view says of it, and its exchanges, read when they are first asked for."""

    run_id: str
    name: str
    service: str
    kind: Kind
    started_at: datetime
    """UTC, without a zone."""
    duration_ms: float | None
    steps: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    status: str
    """`running`, `killed`, `error` or `ok`."""
    outcome: bool | None
    parent_run_id: str | None
    fork_step: int | None
    experiment_id: str | None
    entrypoint: str | None
    command: tuple[str, ...] | None
    store: Store

    @classmethod
    def of_row(cls, row: Mapping[str, Any], store: Store) -> Run:
        """The run of a row of the `runs` view."""
        fields = {name: row[name] for name in cls.__dataclass_fields__ if name in row}
        return cls(**{**fields, "command": _argv(row["command"])}, store=store)

    @cached_property
    def exchanges(self) -> tuple[Exchange, ...]:
        """The exchanges in step order with their bodies; one whose digest does not match has `damage`."""
        return self.store.exchanges(self.run_id)

    @cached_property
    def notes(self) -> tuple[Note, ...]:
        """What the run's processes noted: losses, drifts, connections round the seam."""
        return self.store.notes(self.run_id)

    @cached_property
    def launch_id(self) -> str | None:
        """The trace id of the command that started the run's processes, which may be the run's own."""
        return self.store.launch_of(self.run_id)

    @cached_property
    def start(self) -> HowStarted:
        """How to start the agent again, as far as the recording says."""
        return how_started(self.store.start_attributes(self.run_id, self.launch_id))

    @cached_property
    def incomplete_reasons(self) -> tuple[str, ...]:
        """Why the run is not whole, one reason each; empty if it is."""
        reasons: list[str] = []
        for step, exchange in enumerate(self.exchanges):
            if exchange.outcome == "in_flight":
                ended = "is still open" if self.status == "running" else "was open when its process ended"
                reasons.append(f"step {step} {ended}")
            if exchange.damage:
                reasons.append(f"step {step} is damaged: {exchange.damage}")
        for note in self.notes:
            if note.kind == "lost":
                count = note.attributes.get("count", 1)
                reasons.append(
                    f"{count} record{'s' if count != 1 else ''} lost: {note.attributes.get('why', 'unknown')}"
                )
            elif note.kind == "incomplete":
                reasons.append(str(note.attributes.get("why", "the recording says so")))
        return tuple(reasons)

    @property
    def complete(self) -> bool:
        """Whether everything that the run sent and got is here, byte for byte."""
        return not self.incomplete_reasons


def _argv(text: str | None) -> tuple[str, ...] | None:
    value = _json(text)
    return tuple(map(str, value)) if isinstance(value, list) else None


def _json(value: object) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return None


def how_started(attributes: Mapping[str, Any]) -> HowStarted:
    """The start that span attributes `tracefork.*` describe."""
    environment = _json(attributes.get("tracefork.environment"))
    withheld = _json(attributes.get("tracefork.environment.withheld"))
    versions = _json(attributes.get("tracefork.versions"))
    status = attributes.get("tracefork.exit_status")
    return HowStarted(
        command=_argv(attributes.get("tracefork.command")),
        cwd=attributes.get("tracefork.cwd"),
        environment=environment if isinstance(environment, dict) else {},
        withheld=tuple(map(str, withheld)) if isinstance(withheld, list) else (),
        entrypoint=attributes.get("tracefork.entrypoint"),
        arguments=_json(attributes.get("tracefork.arguments")),
        git_commit=attributes.get("tracefork.git.commit"),
        versions=versions if isinstance(versions, dict) else {},
        exit_status=status if isinstance(status, int) else None,
    )
