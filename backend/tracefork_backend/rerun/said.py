"""What an agent put out when it ran again: all of it for who grades it, its ends for the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tracefork_otel.play.claims import Claims
from tracefork_otel.redaction.redact import Redactor

from ..agents.output import output_attributes
from .records import Records
from .starting import Ended
from .workspace import TrialSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one agent put out, until it is graded."""

    ended: Ended
    records: Records
    space: TrialSpace

    def graded(self) -> Mapping[str, Any]:
        """Return what an oracle is shown of it, as fields of `Graded`: as much as there is."""
        printed, missing = (self.ended.stdout, 0) if self.ended.output is None else self.ended.output.whole()
        result, left_out = self._result(self.space.claims)
        if result is None:
            result, left_out = printed, missing
        return {"output": result, "stdout": printed, "left_out": left_out}

    def fields(self) -> Mapping[str, Any]:
        """Return what a fork or a replay keeps of it: beginnings and ends."""
        result, left_out = self._result(Claims())
        if result is None:
            left_out = 0 if self.ended.output is None else self.ended.output.missing
        return {
            "result": result,
            "stdout": self.ended.stdout,
            "stderr": self.ended.stderr,
            "left_out": left_out,
        }

    def _result(self, claims: Claims) -> tuple[object, int]:
        return (self.ended.result, 0) if self.ended.in_place else self.records.whole_result(claims)

    def attributes(self, redactor: Redactor) -> Mapping[str, object]:
        """Return what the root of the run says of it: nothing of an agent function, whose result is kept."""
        kept = self.fields()
        if self.ended.output is None or kept["result"] is not None:
            return {}
        return output_attributes(kept["stdout"], kept["left_out"], redactor)

    def close(self) -> None:
        """Keep no more of it than its beginning and end."""
        if self.ended.output is not None:
            self.ended.output.close()
