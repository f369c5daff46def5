"""What the file of a wire form offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..exchange import Headers
    from .framing import Event, Framing
    from .messages import Asked, Reply
    from .placing import Placed, Tools
    from .writing import Cut, IdSource, ToolInput, ToolResult

Json = dict[str, Any]


class WireForm(Protocol):
    """One wire form, read and written; bodies come content-decoded, and every function is pure.

    What reads takes any JSON without raising; what writes raises UsageError where the form has no place for
    what it is given. A "whole" is a reply as JSON, as it comes where no stream was asked for.
    """

    @property
    def FRAMINGS(self) -> Sequence[Framing]:
        """The framings in which replies are streamed."""
        ...

    @property
    def REQUEST_ID(self) -> str | None:
        """The response header that names the request, None where the API has none."""
        ...

    @property
    def TURNS(self) -> str | None:
        """The member in which a request has its turns, None where one of them is not read without the others.

        Each is an object, and a turn of what is read; results alone may go by the names of earlier calls.
        """
        ...

    def streams(self, url: str, request: Json) -> Framing | None:
        """Return how the reply to this request is streamed, None where it comes whole."""
        ...

    def read_request(self, request: Json) -> Asked:
        """Return what a request asks."""
        ...

    def read_reply(self, whole: Json) -> Reply:
        """Return what a whole reply (or error, or both) says."""
        ...

    def assemble(self, events: Iterable[Event]) -> Json:
        """Return the whole that a stream adds up to, as far as it goes, with the error that came in it."""
        ...

    def is_reply(self, whole: Json) -> bool:
        """Return whether the JSON is a reply in this form."""
        ...

    def tool_results(self, request: Json) -> list[ToolResult]:
        """Return the results of tools that a request carries, in their order."""
        ...

    def system_edit(self, request: Json, system: str) -> tuple[str, Any]:
        """Return the JSON path and the value that give a request this system prompt."""
        ...

    def system_texts(self, request: Json) -> Sequence[Placed]:
        """Return the texts of the system prompt, each at its place."""
        ...

    def tools(self, request: Json) -> Tools:
        """Return the tools that a request offers, and where it names one of them beside that."""
        ...

    def write_request(self, asked: Asked, model: str) -> Json:
        """Return a request that asks this."""
        ...

    def write_reply(self, reply: Reply, *, request: Json, frame: Json, ids: IdSource) -> Json:
        """Return the whole that says this.

        What `frame`, another whole, tells beside what it says (model, date, input tokens) is kept; it may be
        empty.
        """
        ...

    def write_events(self, request: Json, whole: Json, cut: Cut) -> list[Event]:
        """Return the events in which a whole is streamed, its texts cut into deltas."""
        ...

    def with_tool_input(self, whole: Json, given: ToolInput, ids: IdSource) -> Json:
        """Return a whole with a tool call's input replaced and a new id."""
        ...

    def with_streamed_tool_input(
        self, events: Sequence[Event], given: ToolInput, ids: IdSource
    ) -> list[Event]:
        """Return the events with a tool call's input replaced; what does not speak of it stays as it is."""
        ...

    def error(self, status: int, ids: IdSource, text: str | None = None) -> tuple[int, Json, Headers]:
        """Return the API's own status for an error like this one, its body, and the headers with it."""
        ...
