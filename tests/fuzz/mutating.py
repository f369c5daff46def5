"""Inputs made of good ones: bytes flipped, cut and doubled, values of JSON replaced, moved and renamed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeAlias

Input: TypeAlias = tuple[bytes, ...]
"""What a target reads: one file, or the parts of an exchange."""

NUMBERS = (
    0,
    1,
    -1,
    2**31,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    2**64,
    10**40,
    1.5,
    -0.0,
    1e308,
    1e999,
    float("nan"),
)
TEXTS = ("", "a", "\0", "\ud800", "\udc00x", "é", "😀", "../x", "0", "1e999", "{", "[1]", "\n\n", "x" * 2000)
OTHERS = (None, True, False, [], {}, [[]], [{}], {"": None}, ["a", 1, None], {"type": "text"}, [[["a"]]])
INTERESTING = tuple(b'\0\x01\x7f\x80\xff{}[]",:\\\r\n 0-')


def mutated(given: Input, pool: list[Input], rng: random.Random) -> Input:
    """Return the input with one part or more changed; parts may come out of others of the pool."""
    parts = list(given)
    for _ in range(1 + (rng.random() < 0.2)):
        at = rng.randrange(len(parts))
        if rng.random() < 0.05:
            other = rng.choice(pool)
            parts[at] = other[min(at, len(other) - 1)]
        parts[at] = _part(parts[at], rng)
    return tuple(parts)


def _part(data: bytes, rng: random.Random) -> bytes:
    if data[:1] in (b"{", b"[") and rng.random() < 0.7:
        found = _lines(data, rng)
        if found is not None:
            return found
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice(_BYTES)(data, rng)
    return data


def _lines(data: bytes, rng: random.Random) -> bytes | None:
    """Return JSON, or lines of JSON, with a value changed; None where it is none."""
    try:
        return _dumped(changed(json.loads(data), rng), rng)
    except (ValueError, RecursionError):
        pass
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    try:
        lines[at] = _dumped(changed(json.loads(lines[at]), rng), rng)
    except (ValueError, RecursionError):
        return None
    return b"\n".join(lines)


def _dumped(value: Any, rng: random.Random) -> bytes:
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")


def odd(rng: random.Random) -> Any:
    """Return a value that few expect."""
    kind = rng.random()
    if kind < 0.02:
        return _deep(rng.choice((50, 200, 900)), rng)
    # A copy: what is put into it later would be in each one that follows, at last it itself.
    return deepcopy(rng.choice(NUMBERS if kind < 0.35 else TEXTS if kind < 0.65 else OTHERS))


def _deep(levels: int, rng: random.Random) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def changed(tree: Any, rng: random.Random) -> Any:
    """Return the tree with one to three of its values replaced, moved, doubled, renamed or left out."""
    times = rng.choice((1, 3, 50))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = _places(tree)
        if not places:
            return odd(rng)
        holder, key = rng.choice(places)
        act = rng.random()
        if act < 0.45:
            holder[key] = odd(rng)
        elif act < 0.6:
            del holder[key]
        elif act < 0.7:
            other, name = rng.choice(places)
            if name in other if isinstance(other, dict) else name < len(other):
                holder[key] = json.loads(json.dumps(other[name]))
        elif act < 0.8:
            holder[key] = [holder[key]] if rng.random() < 0.5 else {"a": holder[key]}
        elif act < 0.88 and isinstance(holder, dict):
            holder[rng.choice(TEXTS)] = holder.pop(key)
        elif act < 0.94:
            value = holder[key]
            holder[key] = str(value) if not isinstance(value, str) else list(value[:20])
        elif isinstance(holder, list):
            holder[key:key] = holder[key : key + 1] * times
            times = 1  # many of many of many are gigabytes
        else:
            holder[rng.choice(TEXTS)] = odd(rng)
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting and len(found) < 2000:
        one = waiting.pop()
        if isinstance(one, dict):
            found += [(one, key) for key in one]
            waiting += one.values()
        elif isinstance(one, list):
            found += [(one, at) for at in range(len(one))]
            waiting += one
    return found


def _flip(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return b"\0"
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def _set(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + bytes([rng.choice(INTERESTING)]) + data[at + 1 :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _without(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice((1, 2, 8, 64)) :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 4, 16))) + data[at:]


def _double(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    piece = data[at : at + rng.choice((1, 8, 100))]
    return data[:at] + piece * rng.choice((2, 10)) + data[at:]


def _number(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63, len(data), len(data) + 1)) % (1 << 8 * size)
    return data[:at] + value.to_bytes(size, "little") + data[at + size :]


def _word(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    word = rng.choice((*TEXTS, "1" * 30, "1" * 5000, "\u00b2", "-1", "null", "[" * 3000, "data: ", "}"))
    return data[:at] + word.encode("utf-8", "surrogatepass") + data[at:]


_BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip,
    _set,
    _cut,
    _without,
    _insert,
    _double,
    _number,
    _word,
)
