"""Which lines of a tape's file hold which pieces of its bodies: each piece is on one line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ..store.runs import Lists, Part
from ..wire.cuts import Cutter, cut


class _Path(NamedTuple):
    """The nodes of a request: those of an earlier one up to a place, and its own after it."""

    earlier: int
    kept: int
    at: int
    """The node at that place."""
    own: list[int]


@dataclass(slots=True)
class Layout:
    """Gives the pieces of bodies their lines; what a request repeats of an earlier one it does not look at.

    All requests come before the first response.
    """

    first_line: int
    _cutter: Cutter = field(default_factory=Cutter)
    _numbers: dict[bytes, int] = field(default_factory=dict[bytes, int])
    """Each piece, numbered as they come."""
    _bodies: Lists = field(default_factory=Lists)
    _paths: list[_Path] = field(default_factory=list[_Path])
    _nodes: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    """The tree of all requests: each node, a piece, by its parent (0 is above all) and the piece's number."""
    _responses: list[int] = field(default_factory=list[int])
    """The pieces of all responses."""

    def request(self, body: bytes) -> int:
        """Return the number of the body, which may repeat another request's beginning."""
        pieced = self._cutter.cut(body)
        new = self._numbered(pieced.new)
        at = node = self._node(pieced.earlier, pieced.kept)
        own: list[int] = []
        for piece in new:
            node = self._nodes.setdefault((node, piece), len(self._nodes) + 1)
            own.append(node)
        self._paths.append(_Path(pieced.earlier, pieced.kept, at, own))
        return self._bodies.add(Part(pieced.earlier, 0, pieced.kept), new)

    def response(self, body: bytes) -> int:
        """Return the number of the body."""
        new = self._numbered(cut(body))
        self._responses += new
        return self._bodies.add(new)

    def settle(self) -> tuple[list[bytes], list[list[int]]]:
        """Return the pieces in the order of their lines, and the runs of lines of each body by its number.

        Requests that share a beginning are laid out one after the other, so that each body of a growing
        conversation is a few runs, however many agents take turns.
        """
        pieces = list(self._numbers)
        order = dict.fromkeys((*self._of_requests(), *self._responses))
        lines = [0] * len(pieces)
        for line, piece in enumerate(order, self.first_line):
            lines[piece] = line
        return [pieces[piece] for piece in order], self._bodies.runs(lines)

    def _numbered(self, pieces: list[bytes]) -> list[int]:
        return [self._numbers.setdefault(piece, len(self._numbers)) for piece in pieces]

    def _node(self, body: int, place: int) -> int:
        """Return the node of a request at that place, 0 before its first piece."""
        while place and place < self._paths[body].kept:
            body = self._paths[body].earlier
        if not place:
            return 0
        path = self._paths[body]
        return path.at if place == path.kept else path.own[place - path.kept - 1]

    def _of_requests(self) -> Iterator[int]:
        """Yield the pieces of the tree's nodes, each node's own branches in the order of their pieces."""
        branches: dict[int, list[tuple[int, int]]] = {}
        for (parent, piece), node in self._nodes.items():
            branches.setdefault(parent, []).append((piece, node))
        ahead = [(-1, 0)]
        while ahead:
            piece, node = ahead.pop()
            if node:
                yield piece
            ahead += sorted(branches.get(node, ()), reverse=True)
