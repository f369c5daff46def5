"""Two-ended deltas: a body as what it shares with an earlier one at both ends, and what is new between.

Standard library only, and fast enough for the application's thread: a 110 KB body costs some 20 µs.
"""

from __future__ import annotations

from dataclasses import dataclass

# Blocks are compared by memcmp, so they should be large; but what differs is looked for in the last one anew.
_BLOCK = 256 * 1024
# The first block is small: two bodies of different conversations mostly differ early.
_FIRST = 1024
_LARGER = 8
# Below this, one XOR of two integers finds the byte faster than further halving.
_XOR = 64
# Eight conversations of one process can interleave before one of them loses its base.
SLOTS = 8
# What the slots may hold on to in all, so that ten-megabyte bodies do not add up in the application.
_SLOT_BYTES = 64 * 1024 * 1024
# A base that lacks no more than this of a body of its own conversation is good enough to stop looking.
_NEAR = 4096
# Bodies below this are written whole: a delta would save nothing and cost a slot.
_SMALLEST = 128


def common_prefix(a: bytes, b: bytes) -> int:
    """Return how many bytes both begin with."""
    n, content = min(len(a), len(b)), memoryview(a)
    at, end, step = 0, 0, _FIRST
    while at < n:
        end = min(at + step, n)
        if not b.startswith(content[at:end], at):
            break
        at, step = end, min(step * _LARGER, _BLOCK)
    else:
        return n
    while end - at > _XOR:
        middle = (at + end) // 2
        if b.startswith(content[at:middle], at):
            at = middle
        else:
            end = middle
    difference = int.from_bytes(a[at:end], "little") ^ int.from_bytes(b[at:end], "little")
    return at + ((difference & -difference).bit_length() - 1) // 8


def common_suffix(a: bytes, b: bytes, limit: int) -> int:
    """Return how many bytes both end with, no more than `limit`."""
    size_a, size_b, content = len(a), len(b), memoryview(a)
    n = min(size_a, size_b, limit)
    at, end, step = 0, 0, _FIRST
    while at < n:
        end = min(at + step, n)
        if not b.endswith(content[size_a - end : size_a - at], 0, size_b - at):
            break
        at, step = end, min(step * _LARGER, _BLOCK)
    else:
        return n
    while end - at > _XOR:
        middle = (at + end) // 2
        if b.endswith(content[size_a - middle : size_a - at], 0, size_b - at):
            at = middle
        else:
            end = middle
    difference = int.from_bytes(a[size_a - end : size_a - at], "little") ^ int.from_bytes(
        b[size_b - end : size_b - at], "little"
    )
    return end - (difference.bit_length() + 7) // 8


def restore(base: bytes, prefix: int, suffix: int, middle: bytes) -> bytes:
    """Return the body of which `middle` is the new part."""
    content = memoryview(base)
    return b"".join((content[:prefix], middle, content[len(base) - suffix :]))


@dataclass(frozen=True, slots=True)
class Delta:
    """How a body differs from the one in slot `base` (-1: nothing), and the slot that it takes (-1: none)."""

    base: int
    prefix: int
    suffix: int
    target: int


WHOLE = Delta(-1, 0, 0, -1)
"""Of a body that shares nothing, and takes no slot."""


class Recent:
    """The last few bodies, of which the one most like a new body is its base."""

    def __init__(self, slots: int = SLOTS) -> None:
        self._bodies: list[bytes | None] = [None] * slots
        self._conversations: list[str] = [""] * slots
        self._order: list[int] = list(range(slots))
        """Slots, the one used last first."""

    def choose(self, body: bytes, conversation: str) -> Delta:
        """Return the delta of the body against the best base; nothing changes until `keep`."""
        if not _SMALLEST <= len(body) <= _SLOT_BYTES:
            return WHOLE
        best, best_prefix, best_suffix = -1, 0, 0
        own = self._conversations
        for slot in sorted(self._order, key=lambda slot: own[slot] != conversation):
            base = self._bodies[slot]
            if base is None:
                continue
            prefix = common_prefix(base, body)
            suffix = common_suffix(base, body, min(len(base), len(body)) - prefix)
            if prefix + suffix > best_prefix + best_suffix:
                best, best_prefix, best_suffix = slot, prefix, suffix
            near = _NEAR if own[slot] == conversation else 0
            if len(base) - prefix - suffix <= near and 2 * (prefix + suffix) >= len(body):
                break
        if best < 0:
            return Delta(-1, 0, 0, self._order[-1])
        return Delta(
            best, best_prefix, best_suffix, self._target(best, best_prefix + best_suffix, conversation)
        )

    def keep(self, delta: Delta, body: bytes, conversation: str) -> None:
        """Put the body into its slot, and empty slots beyond the memory allowed."""
        slot = delta.target
        if slot < 0:
            return
        self._bodies[slot] = body
        self._conversations[slot] = conversation
        self._order.remove(slot)
        self._order.insert(0, slot)
        held = sum(len(kept) for kept in self._bodies if kept is not None)
        for oldest in reversed(self._order):
            if held <= _SLOT_BYTES:
                break
            held -= len(self._bodies[oldest] or b"")
            self._bodies[oldest] = None

    def _target(self, base: int, shared: int, conversation: str) -> int:
        # A body that goes on where its base ended takes the base's place; any other takes the oldest one's.
        held = len(self._bodies[base] or b"")
        if shared >= held or (self._conversations[base] == conversation and 8 * shared >= 7 * held):
            return base
        return self._order[-1]
