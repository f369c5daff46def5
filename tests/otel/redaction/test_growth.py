"""How long patterns may take: foreseen from the pattern and the text, so that none holds an agent up."""

from __future__ import annotations

import base64
import json
import random
import re
from itertools import product
from typing import Any

import pytest
from growth_guard import soon
from hypothesis import given
from hypothesis import strategies as st

from tracefork_otel.redaction.bodies import rewrite, substituted
from tracefork_otel.redaction.growth import STEPS, Explodes, growth
from tracefork_otel.redaction.named import Named
from tracefork_otel.redaction.positions import Unjudged, positions
from tracefork_otel.redaction.reading import parse
from tracefork_otel.wire.json_places import places

MAIL = r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]+"
LINEAR = [
    rf"(?<![\w.+-]){MAIL}",
    r"\b(?:\d[ -]*?){13,16}\b",
    r"sk-[A-Za-z0-9]{20,}",
    r'(?<="price": )\d+',
    r"\b\d{3}-\d{2}-\d{4}\b",
    r"(?i)password\s*[:=]\s*\S+",
    r"\d{2,4}[-. ]?\d{3,4}[-. ]?\d{3,4}",
    r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b",
    r"(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}",
    r"(?m)^key:.*$",
    r"(a+)+",
]
SLOWER = [
    MAIL,
    r"\w+@\w+\.com",
    r"-----BEGIN[\s\S]+?-----END",
    r"\w(?=.*x)",
    r"(['\"]).*?\1",
    r"\w{0,16}\w{0,16}\w{0,16}@",
    r"a.*b.*c.*d",
    r"\s+$",
]


@pytest.mark.parametrize("pattern", LINEAR)
def test_a_pattern_that_goes_over_nothing_twice_is_linear(pattern: str) -> None:
    """What people write for mails, cards, keys, numbers takes no text for a long one."""
    assert growth(re.compile(pattern)).linear


@pytest.mark.parametrize("pattern", SLOWER)
def test_a_pattern_that_tries_again_from_each_place_is_not(pattern: str) -> None:
    """It is one all the same, and what a text costs it is foreseen."""
    assert not growth(re.compile(pattern)).linear


@pytest.mark.parametrize(
    "pattern",
    [
        r"id=(?:x?y?)*z",
        r"(\w?\w?){16}@",
        r"(x+x+)+y",
        r"(?:a|(?:a))*b",
        r"start (\d+|\d+,)*;",
        r"(\w|\d-?)*!",
        r"(?:[A-Z0-9]?){65,}-",
        r"(?:a?){65}b",
        r"(?:(?:abcdefgh)?){17}x",
        r"id (?:\d|){70,90};",
    ],
)
def test_exponential_time_is_seen_however_it_is_reached(pattern: str) -> None:
    """Also behind a text of its own, in bounded repetitions, and where two groups take the same."""
    with pytest.raises(Explodes):
        growth(re.compile(pattern))


def test_what_cannot_be_judged_counts_as_slow() -> None:
    """A pattern that is too long to look at is taken, for short texts."""
    regex = re.compile("|".join(f"{number:05d}x*y" for number in range(100)))
    with pytest.raises(Unjudged):
        positions(regex)
    judged = growth(regex)
    assert not judged.linear
    assert judged.steps("word") < STEPS < judged.steps("0" * 1000)


CJK = [chr(0x4E00 + at) for at in range(600)]


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"(?a)\b\w[a-zé]*X", "aé" * 10_000),
        (r"(?a)\bk[kſ]*X", "kſ" * 10_000),
        ("a" * 100 + "[a-z]*X", "a" * 20_000),
        ("abab" * 20 + "[a-z]*X", "ab" * 10_000),
        (f"(?:{'|'.join(CJK[40:110])})[丙]*[丙丁]*X", CJK[40] + "丙" * 20_000),
        (f"[{''.join(CJK[::2])}]+[{''.join(CJK[1::2])}丙]*X", "丙" * 20_000),
    ],
)
def test_what_takes_the_square_of_the_time_is_foreseen(pattern: str, text: str) -> None:
    """With ASCII's words, where a text begins within itself, and with a class of many characters."""
    assert growth(re.compile(pattern)).steps(text) > STEPS


def hostile() -> dict[str, Any]:
    """Texts of a megabyte on which patterns are slow, and others."""
    drawn = random.Random(1)
    raw = drawn.randbytes(750_000)
    return {
        "hexadecimal, then a mail": "ab01" * 250_000 + " a@b.com",
        "base64url": base64.urlsafe_b64encode(raw).decode() + "@.",
        "beginnings": "-----BEGIN" * 100_000 + "-----END",
        "dots": "a." * 500_000 + "@",
        "one line of words": "a b c d " * 125_000,
        "spaces": " " * 1_000_000 + "x@x",
        "quotes": "\"'" * 500_000,
        "many words": [f"a@b c{number}" for number in range(30_000)],
        "numbers": [drawn.random() for _ in range(50_000)],
        "ones": [1] * 400_000,
    }


FEW = [MAIL, LINEAR[0], SLOWER[2], SLOWER[-2]]


@pytest.mark.parametrize(
    ("name", "patterns"),
    [
        *((name, FEW) for name in hostile()),
        *(pytest.param(name, [*SLOWER, *LINEAR], marks=pytest.mark.slow) for name in hostile()),
    ],
)
def test_no_body_of_a_megabyte_holds_the_agent_up(name: str, patterns: list[str]) -> None:
    """Whatever a body holds, an accepted pattern is done with it soon."""
    body = json.dumps(["start", hostile()[name]]).encode()
    for pattern in patterns:
        rules = parse({"rule": [{"pattern": pattern}]}, "rules.toml")
        # 0.05 s as a rule; a body full of matches takes up to 1.
        with soon(0.5):
            found = rewrite(rules, "request", body, media="application/json", coding="")
        json.loads(found.body if found else body)


def test_a_text_that_would_take_too_long_is_replaced_whole() -> None:
    """Nothing of it is kept, the rest of the body is; equal texts have equal digests; it is counted."""
    rules = parse({"rule": [{"name": "mail", "pattern": MAIL}]}, "rules.toml")
    long = "ab01" * 9000 + " a@b.com"
    found = rewrite(
        rules, "request", json.dumps({"a": "x@y.de", "b": long, "c": long}).encode(), media="", coding=""
    )
    assert found is not None
    value = json.loads(found.body)
    assert value["a"] == "REDACTED"
    assert re.fullmatch("redacted-[0-9a-f]{16}", value["b"])
    assert value["b"] == value["c"]
    assert found.counts == {"mail": 1, "mail (whole texts)": 2}
    assert rewrite(rules, "request", found.body, media="", coding="") is None
    assert substituted(rules, "request", "words " * 1000 + "x@y.de").endswith("words REDACTED")


ATOMS = st.sampled_from(["a", "b", "-", r"\w", r"\d", ".", "[ab]", "[^a]", r"\s", "(?:ab)", r"\b"])
REPEATS = st.sampled_from(["", "", "+", "*", "?", "+?", "{2,4}", "{3}", "{1,20}"])
PATTERNS = st.recursive(
    st.builds(lambda atom, often: atom if atom == r"\b" else atom + often, ATOMS, REPEATS),
    lambda inner: (
        st.builds("".join, st.lists(inner, min_size=1, max_size=4))
        | st.builds("(?:{}|{}){}".format, inner, inner, REPEATS)
    ),
    max_leaves=6,
)


@given(
    PATTERNS,
    st.sampled_from(["", "^", r"\b", r"(?<!\w)"]),
    st.text("ab1- ", max_size=3),
    st.text("ab1- \n", min_size=1, max_size=3),
)
def test_time_is_as_foreseen(pattern: str, before: str, start: str, repeated: str) -> None:
    """No pattern that is taken is slower on a text than what its steps say, by far."""
    try:
        regex = re.compile(before + pattern)
        judged = growth(regex)
    except (re.error, Explodes):
        return
    text = start + repeated * (600 // len(repeated)) + "@"
    steps = judged.steps(text)
    if regex.search("") or steps > STEPS * 4:
        return
    with soon(0.01 + (steps + 40 * len(text)) * 40e-9):
        for _ in regex.finditer(text):
            pass


def fits(pattern: tuple[str | int, ...], path: tuple[str | int, ...]) -> bool:
    """Whether the pattern means the path, tried in every way."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(fits(pattern[1:], path[cut:]) for cut in range(len(path) + 1))
    return bool(path) and pattern[0] in ("*", path[0]) and fits(pattern[1:], path[1:])


STEPS_DOWN = st.sampled_from(["a", "b", 0, 1, "*", "**"])
VALUES = st.recursive(
    st.just(1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=12,
)


@given(st.lists(st.lists(STEPS_DOWN, min_size=1, max_size=4).map(tuple), min_size=1, max_size=3), VALUES)
def test_paths_are_fitted_as_if_each_was_tried(paths: list[tuple[str | int, ...]], value: Any) -> None:
    """Going down step by step finds the first path that means each place."""
    named = Named(paths)
    for place in places(json.dumps(value)):
        assert place is not None
        expected = [at for at, path in enumerate(paths) if fits(path, place.path)]
        assert named.by(place) == (None if place.kind == "key" or not expected else expected[0])


@pytest.mark.parametrize(
    ("opened", "closed"), list(product(['{"a":', "[", '{"user":{"id":', '[{"type":'], ["", "close"]))
)
def test_depth_costs_no_more_than_length(opened: str, closed: str) -> None:
    """Five thousand levels are gone through in the time of as many values side by side, streamed or not."""
    ends = "".join("}" if mark == "{" else "]" for mark in reversed(opened) if mark in "{[")
    count = 5_000
    body = opened * count + '"x@y.de"' + ends * (count if closed else 0)
    rules = parse(
        {"rule": [{"json": "**.user.id"}, {"json": "**.a.**.x"}, {"json": "a.*.a"}, {"pattern": MAIL}]},
        "rules.toml",
    )
    for media, text in (("application/json", body), ("text/event-stream", f"data: {body}\n\n")):
        with soon(0.2):
            found = rewrite(rules, "response", text.encode(), media=media, coding="")
        assert found is not None
        assert b"x@y.de" not in found.body
