"""Deltas restore every body, whatever it is compared with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from wal_samples import bodies

from tracefork_otel.store import delta as delta_of

small = st.binary(max_size=40) | st.text("ab", max_size=300).map(str.encode)


@st.composite
def relatives(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Two bodies of which the second has a part of the first replaced."""
    base = draw(st.binary(max_size=300)) * draw(st.sampled_from([1, 1, 7, 600]))
    start = draw(st.integers(0, len(base)))
    end = draw(st.integers(start, len(base)))
    return base, base[:start] + draw(small) + base[end:]


@given(relatives() | st.tuples(small, small))
def test_prefix_and_suffix_are_the_longest(pair: tuple[bytes, bytes]) -> None:
    """What both share at either end is found to the byte."""
    a, b = pair
    prefix = delta_of.common_prefix(a, b)
    assert a[:prefix] == b[:prefix]
    assert prefix == min(len(a), len(b)) or a[prefix] != b[prefix]
    limit = min(len(a), len(b)) - prefix
    suffix = delta_of.common_suffix(a, b, limit)
    assert suffix <= limit
    assert a[len(a) - suffix :] == b[len(b) - suffix :]
    assert suffix == limit or a[len(a) - suffix - 1] != b[len(b) - suffix - 1]


@given(relatives())
def test_a_delta_restores_the_body(pair: tuple[bytes, bytes]) -> None:
    """Prefix, middle and suffix make the body again."""
    base, body = pair
    prefix = delta_of.common_prefix(base, body)
    suffix = delta_of.common_suffix(base, body, min(len(base), len(body)) - prefix)
    assert delta_of.restore(base, prefix, suffix, body[prefix : len(body) - suffix]) == body


@given(st.lists(st.tuples(relatives(), st.sampled_from("abc")), max_size=12))
def test_the_base_is_what_the_slot_holds(pairs: list[tuple[tuple[bytes, bytes], str]]) -> None:
    """Every delta is restored from what was kept in its slot, in any order of bodies and conversations."""
    recent, slots = delta_of.Recent(3), {-1: b""}
    for body, conversation in ((body, name) for pair, name in pairs for body in pair):
        delta = recent.choose(body, conversation)
        base = slots[delta.base]
        middle = body[delta.prefix : len(body) - delta.suffix]
        assert delta_of.restore(base, delta.prefix, delta.suffix, middle) == body
        recent.keep(delta, body, conversation)
        if delta.target >= 0:
            slots[delta.target] = body


def test_conversations_that_interleave_each_keep_their_base() -> None:
    """With eight conversations at once, a request costs about what it says for the first time."""
    recent = delta_of.Recent()
    conversations = [[request for request, _ in bodies(6, seed=seed)] for seed in range(8)]
    for turn in range(6):
        for name, requests in enumerate(conversations):
            body = requests[turn]
            delta = recent.choose(body, str(name))
            if turn:
                assert len(body) - delta.prefix - delta.suffix < 3000
                assert delta.base == delta.target
            recent.keep(delta, body, str(name))


def test_slots_do_not_hold_on_to_large_bodies() -> None:
    """Bodies of ten megabytes push each other out before they fill the memory of the application."""
    recent = delta_of.Recent()
    for number in range(12):
        body = bytes([number]) * 10_000_000
        recent.keep(recent.choose(body, "c"), body, "c")
    held = sum(len(body or b"") for body in recent._bodies)
    assert 10_000_000 <= held <= 64 * 1024 * 1024
