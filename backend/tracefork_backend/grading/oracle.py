"""Oracles: whether a run ended in success, and what they are shown of it.

An oracle is any function from `Graded` to True (success), False (failure) or None (it cannot tell).
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from tracefork_otel.errors import UsageError
from tracefork_otel.wire.paths import PathTokens, format_path, parse_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracefork_otel.exchange import Exchange

    from ..rerun.result import Fork
    from ..store import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """What an oracle is shown of a run."""

    run_id: str
    output: object = None
    """What the agent's function returned (as text, if that was in another process), else its output."""
    exit_status: int | None = None
    """How its process ended, 128+n for signal n; None if nobody saw it."""
    last_text: str = ""
    """The text of the last model call's response, put together where it was streamed."""
    stdout: str = ""
    stderr: str = ""
    """The beginning and the end of both; empty for recorded runs, of which they are not kept."""
    problem: str | None = None
    """Why the run is none to grade, such as a fork that never came to its step; such a run has no outcome."""

    @property
    def text(self) -> str:
        """What is graded, as text: the output, else the last response's text."""
        from tracefork_otel.decorators.agent import result_text

        output = "" if self.output is None else result_text(self.output)
        return output if output.strip() else self.last_text


Oracle: TypeAlias = Callable[[Graded], bool | None]


def grade(oracle: Oracle, graded: Graded) -> bool | None:
    """The run's outcome: True, False, or None if it has a problem or the oracle cannot tell.

    Raises UsageError naming the oracle if it raises, or answers with anything else.
    """
    if graded.problem is not None:
        return None
    try:
        answer: object = oracle(graded)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"the oracle {name_of(oracle)} failed on run {graded.run_id[:8]}: "
            f"{type(error).__name__}: {error}; let it answer None where it cannot tell"
        ) from error
    if answer is None or isinstance(answer, bool):
        return answer
    raise UsageError(
        f"the oracle {name_of(oracle)} answered {answer!r} on run {graded.run_id[:8]}: "
        "it has to answer True (success), False (failure) or None (cannot tell)"
    )


def name_of(oracle: Oracle) -> str:
    """What to call the oracle in tables and messages."""
    named = getattr(oracle, "name", None)
    return named if isinstance(named, str) else str(getattr(oracle, "__qualname__", None) or repr(oracle))


def graded_run(run: Run) -> Graded:
    """What a run of the store shows an oracle: its returned value and exit status, and its last response.

    Standard output is not kept with a run, so one that returned nothing is graded by its last response.
    """
    attributes = run.store.start_attributes(run.run_id, run.launch_id)
    return Graded(
        run_id=run.run_id,
        output=attributes.get("tracefork.result"),
        exit_status=run.start.exit_status,
        last_text=last_text(run.exchanges),
    )


def graded_fork(fork: Fork) -> Graded:
    """What a fork shows an oracle; one that never was what was asked for has a problem instead."""
    return Graded(
        run_id=fork.run_id,
        output=fork.output,
        exit_status=fork.exit_status,
        last_text=fork.last_text or "",
        stdout=fork.stdout,
        stderr=fork.stderr,
        problem=None if fork.gradable else str(fork.problem),
    )


def last_text(exchanges: Sequence[Exchange]) -> str:
    """The text that the last model call answered, empty if there was none."""
    from tracefork_otel.wire.facts import facts_of

    for exchange in reversed(exchanges):
        found = facts_of(exchange)
        if found is not None:
            return found.text
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Regex:
    success: re.Pattern[str] | None
    failure: re.Pattern[str] | None
    name: str

    def __call__(self, graded: Graded) -> bool | None:
        won = None if self.success is None else self.success.search(graded.text) is not None
        lost = None if self.failure is None else self.failure.search(graded.text) is not None
        if won is None or lost is None:
            return won if lost is None else not lost
        return won if won != lost else None


def regex(success: str | None = None, failure: str | None = None) -> Oracle:
    """Success where the graded text holds the one pattern, failure where it holds the other.

    With one pattern its absence is the opposite; with two, text that holds both or none cannot be graded.
    """
    if success is None and failure is None:
        raise UsageError("a regex oracle needs a pattern: success, failure or both")
    patterns = {"success": success, "failure": failure}
    name = " ".join(f"{key}=/{pattern}/" for key, pattern in patterns.items() if pattern is not None)
    return _Regex(success=_pattern(success), failure=_pattern(failure), name=f"regex {name}")


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise UsageError(f"{text!r} is no regular expression: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    path: PathTokens
    value: object
    name: str

    def __call__(self, graded: Graded) -> bool | None:
        ok, found = _json_of(graded)
        if not ok:
            return None
        for token in self.path:
            kind = dict if isinstance(token, str) else list
            if not isinstance(found, kind):
                return False
            try:
                found = cast("Any", found)[token]
            except LookupError:
                return False
        # JSON has one kind of number, and true is none.
        return found == self.value and isinstance(found, bool) == isinstance(self.value, bool)


def field(path: str, value: object) -> Oracle:
    """Success where the graded JSON has this value at the path; what is no JSON cannot be graded.

    Output that is no JSON as a whole counts by its last line.
    """
    tokens = parse_path(path)
    if "*" in tokens:
        raise UsageError(f"{path}: name one value, `*` stands for several")
    return _Field(
        path=tokens, value=value, name=f"field {format_path(tokens)}={json.dumps(value, default=repr)}"
    )


def _json_of(graded: Graded) -> tuple[bool, Any]:
    if graded.output is not None and not isinstance(graded.output, str):
        return True, graded.output
    text = graded.text.strip()
    for part in dict.fromkeys((text, text.rpartition("\n")[2])):
        try:
            return True, json.loads(part)
        except (ValueError, RecursionError):
            continue
    return False, None


@dataclass(frozen=True, slots=True, kw_only=True)
class _ExitCode:
    success: int
    name: str

    def __call__(self, graded: Graded) -> bool | None:
        return None if graded.exit_status is None else graded.exit_status == self.success


def exit_code(success: int = 0) -> Oracle:
    """Success where the agent's process ended with this status; cannot tell where nobody saw it end."""
    return _ExitCode(success=success, name="exit code" if success == 0 else f"exit code {success}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Function:
    call: Callable[[Graded], Any] = dataclasses.field(repr=False)
    name: str

    def __call__(self, graded: Graded) -> bool | None:
        return self.call(graded)


def function(path: str) -> Oracle:
    """The oracle that `pkg.mod:fn` names, looked for here too; raises UsageError if there is none."""
    from tracefork_otel.decorators.main import find

    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        importlib.invalidate_caches()
        found = find(path)
    except Exception as error:
        why = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise UsageError(f"the oracle {path} cannot be imported: {why}") from error
    finally:
        if added:
            sys.path.remove(here)
    return _Function(call=found, name=path)
