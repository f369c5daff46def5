"""A folder's copy listed as the folder that it stands for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any


class Scan:
    """What `os.scandir` gives of a copy, as it would of the folder that the copy stands for."""

    def __init__(self, found: Any, folder: Any) -> None:
        self._found = found
        self._folder = folder

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return _Entry(next(self._found), self._folder)

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *of_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        with suppress(AttributeError):
            self._found.close()


class _Entry:
    def __init__(self, entry: Any, folder: Any) -> None:
        self._entry = entry
        self.name = entry.name
        self.path = os.path.join(folder, entry.name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry, name)

    def __fspath__(self) -> Any:
        return self.path

    def __repr__(self) -> str:
        return repr(self._entry)
