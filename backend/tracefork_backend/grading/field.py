"""The oracle that reads one value of JSON output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from tracefork_otel.errors import UsageError
from tracefork_otel.wire.paths import PathTokens, format_path, parse_path

from ..flag import Flag, assignment
from .graded import Graded, How


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Success where the graded JSON has a value at a path."""

    flags: ClassVar = (Flag("field", "A value of JSON output that means success.", "PATH=VALUE"),)

    path: PathTokens
    value: object
    name: str
    how: ClassVar = How(parts=True)

    @classmethod
    def asked(cls, given: Mapping[str, Any]) -> Field:
        """Return what the flag asks for, as values by flag."""
        return field(*assignment(given["field"], "--field", "status=confirmed"))

    def __call__(self, graded: Graded) -> bool | None:
        """Grade a run."""
        ok, found = json_of(graded)
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


def field(path: str, value: object) -> Field:
    """Return the oracle of this value at the path of graded JSON; what is no JSON cannot be graded.

    Output that is no JSON as a whole counts by its last line.
    """
    tokens = parse_path(path)
    if "*" in tokens:
        raise UsageError(f"{path}: name one value, `*` stands for several")
    return Field(
        path=tokens, value=value, name=f"field {format_path(tokens)}={json.dumps(value, default=repr)}"
    )


def json_of(graded: Graded) -> tuple[bool, Any]:
    """Return whether what is graded is JSON, as a whole or in its last line, and what that says."""
    if graded.output is not None and not isinstance(graded.output, str):
        return True, graded.output
    text = graded.text.strip()
    last = text.rpartition("\n")[2]
    for part in (last,) if graded.left_out else dict.fromkeys((text, last)):
        try:
            return True, json.loads(part)
        except (ValueError, RecursionError):
            continue
    return False, None
