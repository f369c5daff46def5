"""What a hash object of the standard library can do, whose own type has no public name."""

from __future__ import annotations

from typing import Protocol, Self


class Hash(Protocol):
    """A digest that goes on."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take in more."""
        ...

    def digest(self) -> bytes:
        """Return the digest of what was taken in so far."""
        ...

    def copy(self) -> Self:
        """Return one that goes on from here apart."""
        ...
