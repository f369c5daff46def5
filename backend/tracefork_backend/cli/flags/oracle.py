"""The flags that say what a success is, the same for every command that grades."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from tracefork_otel.errors import UsageError

from . import Flags
from .common import valued

if TYPE_CHECKING:
    from ...grading.oracle import Oracle


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleFlags(Flags):
    """What grades a run."""

    success_re: Annotated[str | None, valued("--success-re", "REGEX", "Output that means success.")] = None
    failure_re: Annotated[str | None, valued("--failure-re", "REGEX", "Output that means failure.")] = None
    field: Annotated[
        str | None, valued("--field", "PATH=VALUE", "A value of JSON output that means success.")
    ] = None
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Status 0 means success.")] = False
    oracle: Annotated[
        str | None, valued("--oracle", "PKG.MOD:FN", "A function that says what is success.")
    ] = None
    judge: Annotated[
        str | None, valued("--judge", "RUBRIC|@FILE", "A model grades by these words; needs its key.")
    ] = None
    judge_model: Annotated[str | None, valued("--judge-model", "MODEL", "Which model judges.")] = None
    judge_rates: Annotated[
        str | None,
        valued("--judge-rates", "SENS,SPEC", "How often it is right, to be shown: `0.95,0.9`."),
    ] = None

    def asked(self) -> Oracle | None:
        """Return the one oracle that the flags ask for; UsageError for two, or for a malformed value."""
        from ...grading import oracle
        from ...rerun.edits.values import assignment

        regex = self.success_re is not None or self.failure_re is not None
        others = [self.field, self.oracle, self.judge]
        if regex + self.exit_code + sum(given is not None for given in others) > 1:
            raise UsageError(
                "one oracle grades a run: choose one of --success-re with --failure-re, --field, "
                "--exit-code, --oracle, --judge"
            )
        if self.judge is not None:
            return self._judge(self.judge)
        if self.judge_model is not None or self.judge_rates is not None:
            raise UsageError("--judge-model and --judge-rates belong to --judge RUBRIC: give the rubric too")
        if regex:
            return oracle.regex(self.success_re, self.failure_re)
        if self.field is not None:
            path, value = assignment(self.field, "--field", "status=confirmed")
            return oracle.field(path, value)
        if self.oracle is not None:
            return oracle.function(self.oracle)
        return oracle.exit_code() if self.exit_code else None

    def _judge(self, rubric: str) -> Oracle:
        from ...grading.judge import JUDGE_MODEL, ErrorRates, Judge
        from ...rerun.edits.values import text_value

        rates = None
        if self.judge_rates is not None:
            try:
                sensitivity, specificity = (float(part) for part in self.judge_rates.split(","))
            except ValueError:
                raise UsageError(
                    f"--judge-rates {self.judge_rates!r} is not SENSITIVITY,SPECIFICITY: "
                    "write it like 0.95,0.9"
                ) from None
            rates = ErrorRates(sensitivity=sensitivity, specificity=specificity)
        return Judge(text_value(rubric, "--judge"), error_rates=rates, model=self.judge_model or JUDGE_MODEL)
