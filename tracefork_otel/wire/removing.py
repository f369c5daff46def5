"""Sections of a system prompt and tools taken out of a request, in whichever form it is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from ..errors import UsageError
from .json_edits import REMOVED
from .paths import PathTokens, parse_path
from .placing import Tools
from .sections import Level, without

if TYPE_CHECKING:
    from ..exchange import Request
    from .placing import Placed

Change: TypeAlias = tuple[str, object]


def removal(places: Sequence[Placed], gone: Collection[int]) -> list[Change]:
    """Return the edits that take these out, and what holds nothing any more, the last ones first."""
    paths = [_outermost(places, at, gone) for at in gone]
    return _ordered(paths)


def _outermost(places: Sequence[Placed], at: int, gone: Collection[int]) -> str:
    """Return what is taken out for this one: the outermost of its holders of which nothing stays."""
    for holder in reversed(places[at].holders):
        held = [n for n, one in enumerate(places) if holder in one.holders]
        if all(n in gone for n in held):
            return holder
    return places[at].path


def _ordered(paths: Iterable[str]) -> list[Change]:
    """Return edits that take these paths out, none within another, later ones first: so indices hold."""
    tokens = {parse_path(path): path for path in paths}
    outer = [one for one in tokens if not any(one[:cut] in tokens for cut in range(1, len(one)))]
    return [(tokens[one], REMOVED) for one in sorted(outer, key=_place, reverse=True)]


def _place(tokens: PathTokens) -> list[tuple[int, int, str]]:
    return [(0, one, "") if isinstance(one, int) else (1, 0, one) for one in tokens]


def taken_out(asked: Request, what: str, value: object) -> list[Change]:
    """Return the edits of an uncoded request that take out `sections` or `tools`, as `told` spells which.

    Raises UsageError where the request has none of them, KeyError, TypeError or ValueError for another value.
    """
    from .replies import read_form

    found = read_form(asked)
    if found is None:
        raise UsageError("the request is no model call")
    told = cast("dict[str, Any]", value)
    if what == "tools":
        return without_tools(found[1], tools_of(asked), [str(name) for name in told["names"]])
    gone = [(str(key), int(nth)) for key, nth in told["sections"]]
    return without_sections(system_texts(asked), gone, "items" if told["level"] == "items" else "headings")


def without_sections(places: Sequence[Placed], gone: Sequence[tuple[str, int]], level: Level) -> list[Change]:
    """Return the edits that take these sections out of the system prompt whose texts stand there.

    Raises UsageError where it has none of them.
    """
    kept = without([one.what for one in places], gone, level)
    if kept is None:
        raise UsageError(
            f"its system prompt has no section {gone[0][0]!r}" if gone else "no section is named"
        )
    changed = [at for at, one in enumerate(places) if kept[at] != one.what]
    empty = [at for at in changed if not kept[at].strip()]
    rewritten: list[Change] = [(places[at].path, kept[at]) for at in changed if at not in empty]
    return [*rewritten, *removal(places, empty)]


def without_tools(request: dict[str, Any], tools: Tools, names: Collection[str]) -> list[Change]:
    """Return the edits that take tools out of a request, and what says that one of them is to be called.

    Raises UsageError where it offers none of them.
    """
    gone = [at for at, one in enumerate(tools.offered) if one.what in names]
    if not gone:
        raise UsageError(f"it offers no tool {', '.join(sorted(names))}")
    paths = [path for path, _ in removal(tools.offered, gone)]
    chosen = [at for at, one in enumerate(tools.chosen) if one.what in names]
    paths += [path for path, _ in removal(tools.chosen, chosen)]
    if len(gone) == len(tools.offered):
        paths += [name for name in tools.beside if name in request]
    return _ordered(paths)


def system_texts(request: Request) -> list[Placed]:
    """Return the texts of a request's system prompt, each at its place; none where it is no model call."""
    from .replies import read_form

    found = read_form(request)
    reader = None if found is None else getattr(found[0], "system_texts", None)  # a package's may have none
    return [] if found is None or reader is None else list(reader(found[1]))


def tools_of(request: Request) -> Tools:
    """Return the tools of a request; none where it is no model call."""
    from .replies import read_form

    found = read_form(request)
    reader = None if found is None else getattr(found[0], "tools", None)
    return Tools() if found is None or reader is None else reader(found[1])
