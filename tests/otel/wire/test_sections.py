"""Prompts cut into sections, and put together without some of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracefork_otel.wire.sections import Level, level_of, sections_of, without

PROMPT = """You are an agent.

## Rules
- Be kind.
- Be short.

```sh
# no heading
```
### Money
Pay nothing.
<example>
# none either
1. Nor an item
</example>
That is all."""


def keys(text: str, level: Level) -> list[str]:
    """What the sections of a text are known by."""
    return [one.key for one in sections_of([text], level)]


def test_headings_and_tags_cut_a_prompt() -> None:
    """What stands in a fence or a tag cuts nothing, and what follows a closed tag is a section again."""
    assert level_of([PROMPT]) == "headings"
    assert keys(PROMPT, "headings") == [
        "You are an agent.",
        "## Rules",
        "### Money",
        "<example>",
        "That is all.",
    ]


def test_a_prompt_without_headings_is_cut_into_paragraphs_and_items() -> None:
    """An item may go on in further lines; one heading alone is no reason to cut at headings."""
    text = "Be kind.\nAlways.\n\n1. Greet\n   warmly\n2) Ask\n* Answer\n\n\nThe end."
    assert level_of([text]) == level_of(["# Title\n" + text]) == "items"
    assert keys(text, "items") == [
        "Be kind.\nAlways.",
        "1. Greet\n   warmly",
        "2) Ask",
        "* Answer",
        "The end.",
    ]


def test_sections_of_one_key_are_told_apart_over_all_texts() -> None:
    """The second of two alike goes, and no text that only contains it."""
    texts = ["Be kind.\n\nBe kind. Always.", "Be kind."]
    assert without(texts, [("Be kind.", 2)], "items") == ["Be kind.\n\nBe kind. Always.", ""]
    assert without(texts, [("Be kind.", 1)], "items") == ["Be kind. Always.", "Be kind."]
    assert without(texts, [("Be kind.", 3), ("Be", 1)], "items") is None


@pytest.mark.parametrize("level", ["headings", "items"])
@given(
    text=st.lists(st.sampled_from(["# a\n", "\n", "- b\n", "c\n", "```\n", "<t>\n", "</t>\n", " ", "d"])).map(
        "".join
    )
)
def test_sections_add_up_to_their_text(level: Level, text: str) -> None:
    """Nothing that is said is lost or stands twice, and without all sections nothing is left."""
    found = sections_of([text], level)
    assert "".join(one.text for one in found).split() == text.split()
    assert all(text[one.start : one.end] == one.text for one in found)
    if found:
        kept = without([text], [(one.key, one.nth) for one in found], level)
        assert kept is not None
        assert not kept[0].strip()
