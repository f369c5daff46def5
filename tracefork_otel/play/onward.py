"""What of a fork's change holds in its later requests, each of which gets edits of its own."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from .. import shapes
from ..errors import UsageError
from ..exchange import RedactedRequest, Request

if TYPE_CHECKING:
    from ..wire.rewriting import Carried, Part

Scope: TypeAlias = Literal["onward", "once"]
"""Whether an edit of a request holds in each later request too, or at its step alone."""
SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A later request in which a change holds."""

    request: Request
    """As it goes out."""
    label: str
    """What of the change it has."""
    path: str | None = None
    """Its path, where that is another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Onward:
    """The parts of a change, or the result of a tool, that requests after the forked one get too."""

    kin: str = ""
    """Which requests have the parts: those of this kind; empty: any that have a place for them."""
    parts: tuple[Part, ...] = ()
    result: Carried | None = None
    label: str = ""
    """The label's beginning."""

    def held(self, request: Request) -> Held | None:
        """Return the request as it goes out, None where nothing of the change has a place in it."""
        from ..wire.rewriting import kin_of, part_edits, result_edits, uncoded

        if self.result is not None:
            edits = result_edits(uncoded(request), self.result)
            try:
                return Held(request=with_edits(request, edits), label=self.label) if edits else None
            except UsageError:
                return None
        if self.kin and kin_of(request) != self.kin:
            return None
        changed, path, labels = request, None, [self.label]
        for part in self.parts:
            try:
                edits, other = part_edits(uncoded(changed), part)
                changed = with_edits(changed, edits) if edits else changed
            except UsageError:
                continue  # it has no such path
            path = other or path
            labels.append(part.label)
        if len(labels) == 1:
            return None
        if path is not None:
            changed = replace(changed, url=urlsplit(changed.url)._replace(path=path).geturl())
        return Held(request=changed, label=" ".join(labels), path=path)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Any) -> Onward:
        """Return what `to_json` gave; raise KeyError, TypeError or ValueError for anything else."""
        from ..wire.rewriting import Carried, Part

        text = shapes.string()
        parts = tuple(
            Part(
                what=_what(one["what"]), label=text(one["label"]), value=one["value"], path=text(one["path"])
            )
            for one in found["parts"]
        )
        told, result = found["result"], None
        if told is not None:
            called, at = told["call_id"], told["at"]
            if type(at) is not int:
                raise TypeError(f"{at!r} is no place")
            result = Carried(
                tool=text(told["tool"]),
                call_id=None if called is None else text(called),
                at=at,
                was=text(told["was"]),
                value=told["value"],
                text=text(told["text"]),
            )
        return cls(kin=text(found["kin"]), parts=parts, result=result, label=text(found["label"]))


def _what(told: Any) -> Any:
    from ..wire.rewriting import What

    if told not in get_args(What):
        raise ValueError(f"{told!r} is no part of a request that a change holds in")
    return told


def with_edits(request: Request, edits: tuple[tuple[str, object], ...]) -> Request:
    """Return the request with these edits in what is sent and in what is written down."""
    from ..wire.json_edits import edited

    coding = request.header("content-encoding")
    body = edited(request.body, coding, edits)
    if isinstance(request, RedactedRequest):
        return replace(request, body=body, raw=edited(request.raw, coding, edits))
    return replace(request, body=body)
