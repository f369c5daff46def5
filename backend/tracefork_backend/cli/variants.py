"""The variants that a command's flags ask for: what one flag given twice means, and two such flags."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from tracefork_otel.errors import UsageError
from tracefork_otel.wire.paths import parse_path

if TYPE_CHECKING:
    from ..rerun.edits import Edit


def variants(
    *,
    text: Sequence[str] = (),
    tool_input: Sequence[str] = (),
    tool: str | None = None,
    response: Sequence[str] = (),
    set: Sequence[str] = (),
    system: Sequence[str] = (),
    model: Sequence[str] = (),
    fault: Sequence[str] = (),
    resample: bool = False,
    noop: bool = False,
    tool_result: Sequence[str] = (),
) -> list[Edit]:
    """One edit per variant: the edits of a request are combined, what is given twice makes variants.

    Raises UsageError, as `from_flags` does, unless the flags ask for one kind of change.
    """
    from ..rerun.interventions import from_flags

    values = {
        "text": text,
        "tool_input": tool_input,
        "response_file": response,
        "fault": fault,
        "tool_result": tool_result,
    }
    given = [name for name, several in values.items() if several]
    request = bool(set or system or model)
    flags: dict[str, Any] = {"tool": tool, "resample": resample, "noop": noop}
    if len(given) + request + resample + noop != 1:
        # More than one kind of change, or none: the one place that knows the words refuses it.
        first = {name: values[name][0] for name in given}
        asked = {"set": set, "system": _first(system), "model": _first(model)} if request else {}
        return [from_flags(**flags, **first, **asked)]
    if request:
        if tool is not None:
            return [from_flags(**flags, set=set, system=_first(system), model=_first(model))]
        return _requests(set, system, model)
    if not given:
        return [from_flags(**flags)]
    return [from_flags(**{**flags, given[0]: value}) for value in values[given[0]]]


def _first(values: Sequence[str]) -> str | None:
    return values[0] if values else None


def _requests(settings: Sequence[str], systems: Sequence[str], models: Sequence[str]) -> list[Edit]:
    """The product of the values of each path, of the system prompts and of the models."""
    from ..rerun import edits
    from ..rerun.interventions import from_flags

    by_path: dict[object, list[tuple[str, object]]] = {}
    for setting in settings:
        ((path, value),) = from_flags(set=[setting]).changes
        by_path.setdefault(parse_path(path), []).append((path, value))
    prompts = [from_flags(system=given).system for given in systems]
    found = [
        edits.of_changes(changes, system=system, model=model)
        for changes in product(*by_path.values())
        for system in prompts or [None]
        for model in models or [None]
    ]
    for n, edit in enumerate(found):
        if edit in found[:n]:
            raise UsageError(f"{edit.label}: this variant is asked for twice; use --times for more trials")
    return found
