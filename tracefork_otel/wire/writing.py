"""What writing a reply takes in every wire form: ids, token counts, deltas, JSON laid out alike."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..errors import UsageError
from .dumps import dumps
from .json_values import count, loads, mapping, mappings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from .messages import Asked, Message, Turn

    Cut = Callable[[str], Sequence[str]]

# Both providers bill English text at about four bytes a token.
_BYTES_PER_TOKEN = 4
# About the length of the deltas that providers send: a few tokens.
_DELTA_CHARS = 24
_COMPACT, _SPACED = (",", ":"), (", ", ": ")
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_HEX = "0123456789abcdef"
# Dates a reply where no recorded one does: a clock would make two encodings of one intervention differ.
FIXED_DATE = 1_760_000_000


class IdSource(Protocol):
    """What gives ids in the providers' shapes."""

    def base58(self, prefix: str, length: int) -> str:
        """Return a prefix and base58 characters, as in Anthropic's ids."""
        ...

    def hex(self, prefix: str, length: int) -> str:
        """Return a prefix and hex digits, as in OpenAI's ids."""
        ...


class Ids:
    """Ids in the providers' shapes that follow from what a reply answers and says, and from nothing else."""

    def __init__(self, *seeds: bytes) -> None:
        """Equal seeds give equal ids, in the order in which they are asked for."""
        self._seed = sha256(b"".join(sha256(seed).digest() for seed in seeds)).digest()
        self._drawn = 0

    def base58(self, prefix: str, length: int) -> str:
        """Return a prefix and base58 characters, as in Anthropic's ids."""
        return prefix + self._characters(_BASE58, length)

    def hex(self, prefix: str, length: int) -> str:
        """Return a prefix and hex digits, as in OpenAI's ids."""
        return prefix + self._characters(_HEX, length)

    def _characters(self, alphabet: str, length: int) -> str:
        """Return the next characters of that alphabet."""
        drawn = b""
        while len(drawn) < length:
            drawn += sha256(self._seed + self._drawn.to_bytes(8, "big")).digest()
            self._drawn += 1
        return "".join(alphabet[byte % len(alphabet)] for byte in drawn[:length])


def call_id_of(said: Message, ids: IdSource | None, prefix: str, length: int) -> str | None:
    """Return the id that a tool call was given, be it empty as local servers send it, else a new one."""
    if said.call_id is not None or ids is None:
        return said.call_id
    return ids.base58(prefix, length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A tool call in a recorded reply; a free call's input is text, any other's a JSON object."""

    name: str | None
    given: str
    free: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolInput:
    """What replaces the input of a tool call: the `nth` of the tool `tool`, or of all, counted from 0."""

    value: object
    tool: str | None = None
    nth: int = 0

    def choose(self, calls: Sequence[Call]) -> int:
        """Return which call is meant; raise UsageError where there is none, or the input does not fit."""
        if not calls:
            raise UsageError("the recorded reply calls no tool, so it has no input to replace: use --text")
        meant = [number for number, call in enumerate(calls) if self.tool in (None, call.name)]
        if self.nth < len(meant):
            self._check(calls[meant[self.nth]])
            return meant[self.nth]
        called = ", ".join(dict.fromkeys(str(call.name) for call in calls))
        raise UsageError(f"the recorded reply does not call a tool {self.tool!r}; it calls {called}")

    def _check(self, call: Call) -> None:
        """Raise UsageError where the value is no input of that call."""
        if call.free and not isinstance(self.value, str):
            raise UsageError(f"the tool {call.name!r} takes plain text: give its input as a JSON string")
        if not call.free and not isinstance(self.value, dict):
            raise UsageError(f'the tool {call.name!r} takes a JSON object, such as \'{{"city": "Tokyo"}}\'')

    def spelled(self, old: str = "") -> str:
        """Return the input as it goes on the wire where that is text: as it is, or as JSON.

        The JSON is spaced and escaped like the call's recorded input, so that the recorded value gives the
        recorded bytes, and an agent that sends them back comes back to its recorded requests.
        """
        if isinstance(self.value, str):
            return self.value
        recorded = loads(old) if old else None
        for separators, escaped in product((_COMPACT, _SPACED), (False, True)):
            if recorded is not None and dumps(recorded, separators=separators, escaped=escaped) == old:
                return dumps(self.value, separators=separators, escaped=escaped, finite=True)
        return compact(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """The result of a tool that a request carries."""

    call_id: str | None
    """What the call that it answers is known by."""
    path: str
    """The JSON path of what it says."""
    name: str | None = None
    """The tool's name where it stands beside the result, or else the request holds the call."""
    undone: tuple[tuple[str, object], ...] = ()
    """Further edits that another result needs, such as that it is no error."""
    text: str = ""
    """What it says, as text."""
    saying: Callable[[object, str], object] = field(default=lambda value, text: text, compare=False)
    """Return what stands at the path if the tool gave this value, which is this as text."""


def parts_or_text(recorded: object, kinds: Collection[str]) -> Callable[[object, str], object]:
    """Return what stands for a value where a result is text or a list of parts of these kinds, as recorded.

    Parts in the place of parts are what they are, a picture say; any other value is its text.
    """

    def saying(value: object, text: str) -> object:
        parts = mappings(value) if isinstance(recorded, list) and isinstance(value, list) else []
        whole = parts and len(parts) == len(cast("list[object]", value))
        return value if whole and all(one.get("type") in kinds for one in parts) else text

    return saying


def as_messages(
    asked: Asked,
    said: Callable[[str, Turn], dict[str, Any]],
    answered: Callable[[Message], dict[str, Any]] = lambda result: {"tool_call_id": result.call_id},
) -> list[dict[str, Any]]:
    """Return a request's turns as messages, each result of a tool a message that tells its call."""
    turns = [{"role": "system", "content": one.content} for one in asked.system]
    for turn in asked.turns:
        spoken = tuple(one for one in turn if one.kind != "tool_result")
        if spoken:
            turns.append(said(spoken[0].role, spoken))
        results = [one for one in turn if one.kind == "tool_result"]
        turns += [{"role": "tool", **answered(one), "content": one.content} for one in results]
    return turns


def as_blocks(
    turns: Iterable[Turn],
    block: Callable[[Message], dict[str, Any]],
    *,
    model: str = "assistant",
    key: str = "content",
) -> list[dict[str, Any]]:
    """Return turns as messages of blocks, in which the results of tools are the user's."""
    spoken = [
        (turn[0].role in ("assistant", "model"), [block(one) for one in turn]) for turn in turns if turn
    ]
    return [{"role": model if by_model else "user", key: blocks} for by_model, blocks in spoken]


def tokens(text: str) -> int:
    """Return about how many tokens the text is, at least one."""
    return max(1, -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN))


def shifted(recorded: Any, *, old: str, new: str) -> int:
    """Return a recorded count of output tokens after one text of the output became another."""
    before = count(recorded)
    return tokens(new) if before is None else max(1, before - tokens(old) + tokens(new))


def deltas(text: str) -> list[str]:
    """Return the text in the pieces that it is streamed in."""
    return [text[at : at + _DELTA_CHARS] for at in range(0, len(text), _DELTA_CHARS)]


def signature(thought: str) -> str:
    """Return an opaque signature, which depends on what it signs."""
    return b64encode(b"".join(sha256(f"{part}{thought}".encode()).digest() for part in range(3))).decode()


def numbered(items: Any) -> list[tuple[int, dict[str, Any]]]:
    """Return the objects of an array with their places in it."""
    given = items if isinstance(items, list) else []
    return [(at, item) for at, item in enumerate(given) if isinstance(item, dict)]


def compact(value: Any) -> str:
    """Return the value as JSON without spaces."""
    return dumps(value, separators=_COMPACT, finite=True)


def spaced(value: Any) -> str:
    """Return the value as JSON with a space after each colon and comma."""
    return dumps(value, separators=_SPACED, finite=True)


def laid_out(value: Any, like: bytes | None) -> bytes:
    """Return the value as JSON laid out like a recorded body: over lines, with spaces, or without."""
    start = (like or b"")[:512]
    if start.startswith(b"{\n"):
        indent = len(start[2:]) - len(start[2:].lstrip(b" "))
        return dumps(value, indent=indent, finite=True).encode()
    if b'": ' in start:
        return dumps(value, finite=True).encode()
    return compact(value).encode()


def without(value: Any, *names: str) -> dict[str, Any]:
    """Return an object without the members of those names."""
    return {name: item for name, item in mapping(value).items() if name not in names}
