"""The flags that say what a success is, the same for every command that grades."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from tracefork_otel.errors import UsageError

if TYPE_CHECKING:
    from ..grading.oracle import Oracle


def _one(flag: str, metavar: str, text: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=text)


SuccessOption: TypeAlias = Annotated[str | None, _one("--success-re", "REGEX", "Output that means success.")]
FailureOption: TypeAlias = Annotated[str | None, _one("--failure-re", "REGEX", "Output that means failure.")]
FieldOption: TypeAlias = Annotated[
    str | None, _one("--field", "PATH=VALUE", "A value of JSON output that means success.")
]
ExitCodeOption: TypeAlias = Annotated[bool, typer.Option("--exit-code", help="Status 0 means success.")]
OracleOption: TypeAlias = Annotated[
    str | None, _one("--oracle", "PKG.MOD:FN", "A function that says what is success.")
]
JudgeOption: TypeAlias = Annotated[
    str | None, _one("--judge", "RUBRIC|@FILE", "A model grades by these words; needs its key.")
]
JudgeModelOption: TypeAlias = Annotated[str | None, _one("--judge-model", "MODEL", "Which model judges.")]
JudgeRatesOption: TypeAlias = Annotated[
    str | None, _one("--judge-rates", "SENS,SPEC", "How often it is right, to be shown: `0.95,0.9`.")
]


def oracle_of(
    success_re: str | None,
    failure_re: str | None,
    field: str | None,
    exit_code: bool,
    function: str | None,
    judge: Sequence[str | None] = (None, None, None),
) -> Oracle | None:
    """The one oracle that the flags ask for, None if none does.

    `judge` is the rubric, the model and the rates. Raises UsageError for two oracles or a malformed value.
    """
    from ..grading import oracle
    from ..rerun.interventions import from_flags

    regex = success_re is not None or failure_re is not None
    rubric, model, rates = judge
    if regex + (field is not None) + exit_code + (function is not None) + (rubric is not None) > 1:
        raise UsageError(
            "one oracle grades a run: choose one of --success-re with --failure-re, --field, "
            "--exit-code, --oracle, --judge"
        )
    if rubric is not None:
        return _judge(rubric, model, rates)
    if model is not None or rates is not None:
        raise UsageError("--judge-model and --judge-rates belong to --judge RUBRIC: give the rubric too")
    if regex:
        return oracle.regex(success_re, failure_re)
    if field is not None:
        try:
            ((path, value),) = from_flags(set=[field]).changes
        except UsageError:
            raise UsageError(f"--field {field!r} is not PATH=VALUE: write it like status=confirmed") from None
        return oracle.field(path, value)
    if function is not None:
        return oracle.function(function)
    return oracle.exit_code() if exit_code else None


def _judge(rubric: str, model: str | None, rates: str | None) -> Oracle:
    from ..grading.judge import JUDGE_MODEL, ErrorRates, Judge
    from ..rerun.interventions import flag_value

    found = None
    if rates is not None:
        try:
            sensitivity, specificity = (float(part) for part in rates.split(","))
        except ValueError:
            raise UsageError(
                f"--judge-rates {rates!r} is not SENSITIVITY,SPECIFICITY: write it like 0.95,0.9"
            ) from None
        found = ErrorRates(sensitivity=sensitivity, specificity=specificity)
    return Judge(flag_value(rubric, "--judge"), error_rates=found, model=model or JUDGE_MODEL)
