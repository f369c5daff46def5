"""Replays and forks in the test's own process, of what its recorder wrote down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from otel.seam.clients import ADDRESS
from recorded import Recorded, read_store

from tracefork_otel import Tape, launch
from tracefork_otel.exchange import Exchange
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.settings import Settings

Got = TypeVar("Got")


@contextmanager
def replaying(recorded: Recorded, folder: Path, **settings: Any) -> Iterator[Path]:
    """Inside the block this process replays what was recorded, into the store that is given."""
    folder.mkdir()
    tape = folder / "run.tape"
    Tape(run_id="0" * 32, exchanges=tuple(recorded.in_order())).dump(tape)
    chosen = Settings(mode="replay", tape=tape, store=folder / "replay", seal=False, **settings)
    with launch.playing(chosen):
        yield folder / "replay"


@contextmanager
def forking(recorded: Recorded, folder: Path, change: Intervention, **settings: Any) -> Iterator[Path]:
    """Inside the block this process forks what was recorded, into the store that is given."""
    folder.mkdir()
    Tape(run_id="0" * 32, exchanges=tuple(recorded.in_order())).dump(folder / "run.tape")
    change.dump(folder / "change.json")
    chosen = Settings(
        mode="fork",
        tape=folder / "run.tape",
        intervention=folder / "change.json",
        store=folder / "fork",
        seal=False,
        **settings,
    )
    with launch.playing(chosen):
        yield folder / "fork"


def change(kind: Any, **members: Any) -> Intervention:
    """An intervention at step 1."""
    return Intervention(kind=kind, step=1, label=f"{kind} it", **members)


def replayed(recorded: Recorded, folder: Path, agent: Callable[[], Got], **settings: Any) -> Got:
    """What the agent sees in a replay of this, whose exchanges are the recorded ones, in their order."""
    with replaying(recorded, folder, **settings) as store:
        seen = agent()
    again = read_store(store)
    assert not again.notes
    assert [shape(one) for one in again.in_order()] == [shape(one) for one in recorded.in_order()]
    assert all(one.replayed for one in again.exchanges)
    assert [one.served_span_id for one in again.in_order()] == [one.span_id for one in recorded.in_order()]
    return seen


def shape(one: Exchange) -> tuple[Any, ...]:
    """What of an exchange is the same in a replay."""
    response = one.response and (one.response.status, one.response.headers, one.response.chunks())
    message = one.error_message and ADDRESS.sub("0x", one.error_message)
    return one.request.body, response, one.outcome, one.error_type, message


def phases(recorded: Recorded) -> list[tuple[object, bool, str | None]]:
    """Phase, whether a tape answered, and the label of each exchange."""
    return [
        (one.attributes.get("tracefork.phase"), one.replayed, one.intervention) for one in recorded.in_order()
    ]
