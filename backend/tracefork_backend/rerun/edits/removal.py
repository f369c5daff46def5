"""Sections of the system prompt or tools taken out of each request from a step on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tracefork_otel.errors import UsageError
from tracefork_otel.play.intervention import Intervention, Kind
from tracefork_otel.play.onward import Onward
from tracefork_otel.wire.rewriting import Part
from tracefork_otel.wire.sections import Level

from ...flag import Flag
from ...spelling import short
from .edit import Edit

if TYPE_CHECKING:
    from tracefork_otel.tape.tape import Tape


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal(Edit):
    """The agent's requests go out without these sections of their system prompt, or without these tools.

    It holds in each request from the step on that has one of them, whoever's it is; the step's own goes out
    as it is where it has none.
    """

    kind: ClassVar[Kind] = "request"
    flags: ClassVar[tuple[Flag, ...]] = ()
    answers: ClassVar[bool] = False

    sections: tuple[tuple[str, int], ...] = ()
    """Each by its key, and its place among those of that key."""
    level: Level = "headings"
    tools: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The kind, and what is taken out."""
        return " ".join([self.kind, *(part.label for part in self.parts())])

    def parts(self) -> tuple[Part, ...]:
        """Return what is taken out, as requests are changed by it."""
        found: list[Part] = []
        if self.sections:
            named = ", ".join(short(key, _SHOWN) for key, _ in self.sections)
            told = {"sections": [list(one) for one in self.sections], "level": self.level}
            found.append(Part(what="sections", label=f"without {named}", value=told))
        if self.tools:
            named = ", ".join(self.tools)
            found.append(Part(what="tools", label=f"without {named}", value={"names": list(self.tools)}))
        return tuple(found)

    def change(self, tape: Tape, step: int) -> Intervention:
        """Return the edits of the step's own request, and what holds in later ones."""
        from tracefork_otel.wire.rewriting import rewritten

        edits: tuple[tuple[str, object], ...] = ()
        for part in self.parts():
            try:
                made, _ = rewritten(tape.exchanges[step].request, (part,))
            except UsageError:
                continue  # a later request has it
            edits += made
        onward = Onward(parts=self.parts(), label=self.kind)
        return self.at(step, edits=edits, scope="onward", onward=onward)


_SHOWN = 40
