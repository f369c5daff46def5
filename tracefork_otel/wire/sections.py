"""A prompt cut into sections: what stands below each heading, or else its paragraphs and list items."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["headings", "items"]
"""What a section is: all that stands below a heading, or one paragraph or list item."""

_HEADING = re.compile(r" {0,3}#{1,6}(?:[ \t]|$)|<([A-Za-z][\w.:-]*)>[ \t]*$")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_ITEM = re.compile(r"[ \t]*(?:[-*+•‣–]|\d{1,3}[.)]|[A-Za-z][.)])[ \t]+\S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section of a prompt."""

    key: str
    """By what it is known in another prompt: its heading, or all of it where it has none."""
    nth: int
    """Its place among the sections of that key, from 1."""
    text: str
    at: int
    """The text of those that it stands in, from 0."""
    start: int
    end: int


def sections_of(texts: Sequence[str], level: Level) -> list[Section]:
    """Return the sections of these texts, in order; those of a text add up to it."""
    found: list[Section] = []
    seen: Counter[str] = Counter()
    for at, text in enumerate(texts):
        for start, end, headed in _cut(text, level):
            whole = text[start:end]
            if not whole.strip():
                continue
            key = whole.strip().splitlines()[0].strip() if headed else whole.strip()
            seen[key] += 1
            found.append(Section(key=key, nth=seen[key], text=whole, at=at, start=start, end=end))
    return found


def level_of(texts: Sequence[str]) -> Level:
    """Return how these texts are cut: at their headings where there are two or more of them."""
    headed = sum(one for text in texts for _, _, one in _cut(text, "headings"))
    return "headings" if headed > 1 else "items"


def without(texts: Sequence[str], gone: Sequence[tuple[str, int]], level: Level) -> list[str] | None:
    """Return the texts without the sections of these keys and places; None where they have none of them."""
    wanted = set(gone)
    left = [one for one in sections_of(texts, level) if (one.key, one.nth) in wanted]
    if not left:
        return None
    kept = list(texts)
    for one in reversed(left):
        text = kept[one.at]
        before, after = text[: one.start], text[one.end :]
        kept[one.at] = before + after if after.strip() else before.rstrip()
    return kept


def _cut(text: str, level: Level) -> Iterator[tuple[int, int, bool]]:
    """Yield where each section begins and ends, and whether it has a heading.

    What a tag of a line of its own holds is one section at either level, whatever is in it.
    """
    begun, at, headed, parted, fence, closing = 0, 0, False, False, "", ""
    for line in text.splitlines(keepends=True):
        start, at = at, at + len(line)
        fenced = _FENCE.match(line)
        inside = bool(fence)
        if fenced is not None and not closing:
            fence = "" if fence == fenced[1] else fence or fenced[1]
        if closing:
            if line.strip() == closing:
                closing, parted = "", True
            continue
        if inside:
            continue
        title = _HEADING.match(line.rstrip("\r\n"))
        if title is not None and title[1]:
            closing = f"</{title[1]}>" if f"</{title[1]}>" in text[at:] else ""
            title = title if closing else None
        said = bool(line.strip())
        new = title is not None or (said and parted)
        if level == "items":
            new = new or (said and _ITEM.match(line) is not None)
        if new:
            if start > begun:
                yield begun, start, headed
            begun, headed = start, title is not None and (level == "headings" or bool(closing))
        parted = (level == "items" and not said) or (parted and not said)
    if at > begun:
        yield begun, at, headed
