"""Nothing written by anybody: the model is asked again, or the tape answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tracefork_otel.errors import UsageError
from tracefork_otel.play.intervention import Intervention, Kind

from ...flag import Flag
from .edit import Edit, ending

if TYPE_CHECKING:
    from tracefork_otel.tape.tape import Tape


@dataclass(frozen=True, slots=True)
class Resample(Edit):
    """The same request goes out for real, and the model answers anew."""

    kind: ClassVar[Kind] = "resample"
    flags: ClassVar[tuple[Flag, ...]] = (Flag("resample", "The model is asked the same anew."),)
    edited: ClassVar[bool] = False
    answers: ClassVar[bool] = False

    def change(self, tape: Tape, step: int) -> Intervention:
        """Return an intervention without any bytes."""
        return self.at(step)


@dataclass(frozen=True, slots=True)
class Noop(Edit):
    """Nothing is changed: the recorded response is served."""

    kind: ClassVar[Kind] = "noop"
    flags: ClassVar[tuple[Flag, ...]] = (Flag("noop", "Nothing is changed."),)
    edited: ClassVar[bool] = False

    def change(self, tape: Tape, step: int) -> Intervention:
        """Return an intervention without any bytes; UsageError where none were recorded."""
        exchange = tape.exchanges[step]
        if exchange.outcome == "in_flight":
            raise UsageError(f"{ending(exchange)}, so there is nothing to serve: use --resample or --text")
        return self.at(step)
