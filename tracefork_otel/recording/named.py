"""The names of a run that its spans tell: the session and the conversation that it is part of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from time import time_ns
from typing import Any

from ..store.records import Note

NAMES = ("session.id", "gen_ai.conversation.id")
"""Attributes of spans and resources, as OpenTelemetry's conventions have them."""
_REMEMBERED = 4096
"""Names that are kept as told, so that a note stands for each once; a server has many runs."""


class Named:
    """The names of runs that are told already."""

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[str, str, str], None] = OrderedDict()

    def note(self, run_id: str, *sources: Mapping[str, Any] | None) -> Note | None:
        """Return a note of what these attributes, the first ones first, name the run; None if it is known."""
        found: dict[str, object] = {}
        for name in NAMES:
            value = next((source[name] for source in sources if source and source.get(name)), None)
            if isinstance(value, str | int) and (run_id, name, str(value)) not in self._told:
                found[name] = str(value)
                self._told[run_id, name, str(value)] = None
                if len(self._told) > _REMEMBERED:
                    self._told.popitem(last=False)
        if not found:
            return None
        return Note(kind="named", time_ns=time_ns(), trace_id=run_id, attributes=found)
