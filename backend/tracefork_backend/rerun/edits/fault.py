"""A failure in place of the response."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, get_args

from tracefork_otel.errors import UsageError
from tracefork_otel.play.intervention import Intervention, Kind

from ...flag import Flag
from .edit import Edit, Given

if TYPE_CHECKING:
    from tracefork_otel import exchange
    from tracefork_otel.tape.tape import Tape

FaultName: TypeAlias = Literal["429", "500", "529", "timeout", "disconnect"]
FAULTS: tuple[FaultName, ...] = get_args(FaultName)


@dataclass(frozen=True, slots=True)
class Fault(Edit):
    """The request fails: the provider's own error of a status, a read timeout, a break in mid-body."""

    kind: ClassVar[Kind] = "fault"
    flags: ClassVar[tuple[Flag, ...]] = (
        Flag("fault", "The request fails: with that status, or so.", "|".join(FAULTS)),
    )

    name: FaultName

    @classmethod
    def named(cls, name: str | int) -> Fault:
        """Return the fault of that name."""
        found: FaultName | None = next((known for known in FAULTS if known == str(name)), None)
        if found is None:
            raise UsageError(f"{name} is no fault: use one of {', '.join(FAULTS)}")
        return cls(found)

    @classmethod
    def parsed(cls, value: str, given: Given) -> Edit:
        """Return the fault of that name."""
        return cls.named(value)

    @property
    def label(self) -> str:
        """The kind and the fault's name."""
        return f"{self.kind} {self.name}"

    def change(self, tape: Tape, step: int) -> Intervention:
        """Return the error, or how the exchange breaks."""
        from tracefork_otel.wire.replies import encode_error

        recorded = tape.exchanges[step]
        if self.name == "timeout":
            return self.at(step, error="timeout")
        if self.name == "disconnect":
            return self.at(step, error="disconnect", response=_first_half(recorded.response))
        return self.at(step, response=encode_error(recorded.request, int(self.name)))


def _first_half(recorded: exchange.Response | None) -> exchange.Response | None:
    """Return what came before the connection broke: half of the chunks, or half of the one."""
    if recorded is None or not recorded.body:
        return recorded
    sizes = recorded.chunk_sizes or (len(recorded.body),)
    kept = sizes[: len(sizes) // 2] or (len(recorded.body) // 2,)
    offsets = recorded.chunk_offsets_us[: len(kept)]
    return replace(recorded, body=recorded.body[: sum(kept)], chunk_sizes=kept, chunk_offsets_us=offsets)
