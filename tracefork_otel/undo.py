"""The changes that we make to other libraries in this process, and how each is taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Undo:
    """A stack of changes, taken back from the last to the first."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: Callable[[], object]) -> None:
        """Have the step called when the changes are taken back."""
        self._steps.append(step)

    def replace(self, owner: Any, name: str, ours: Any) -> None:
        """Set the owner's attribute; taking it back restores what was there, unless others replaced it."""
        inherited = isinstance(owner, type) and name not in owner.__dict__
        before = _own(owner, name)
        setattr(owner, name, ours)

        def put_back() -> None:
            if _own(owner, name) is ours:
                delattr(owner, name) if inherited else setattr(owner, name, before)

        self.add(put_back)

    def take_back(self, down_to: int = 0) -> None:
        """Take back all but the first `down_to` changes."""
        while len(self._steps) > down_to:
            self._steps.pop()()


def _own(owner: Any, name: str) -> Any:
    return owner.__dict__.get(name) if isinstance(owner, type) else getattr(owner, name, None)
