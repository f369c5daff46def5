"""Claims that all processes of a replay or fork share: who took which part of it, as files of a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, TypeAlias

Part: TypeAlias = Literal[
    "step",  # a recorded exchange
    "place",  # a place in a fork's own run
    "tool",  # a recorded call of a tool
    "change",  # a result that a fork replaces, in the order of its changes
    "draws",  # the draws of a recorded process
    "memory",  # an answer that an earlier trial got
]

AGAIN = "again"
"""The forked exchange's recorded answer, for a client that tries again after the intervention."""
OFF_TAPE = "off-tape"
"""Taken by a fork whose prefix left its tape."""


def claim_to(part: Part, number: int) -> str:
    """Return the name of the claim to one of the parts of a replay."""
    return f"{part}-{number}"


class Claims:
    """Claims as files, each of which only one process can create; without a folder each is free.

    So two processes that send equal requests get the two recorded answers, not the first one twice.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def __call__(self, name: str) -> bool:
        """Claim what is named; return whether nobody did before."""
        try:
            if self._folder is not None:
                os.close(os.open(self._folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
        except OSError:  # the folder went away: each process keeps its own count
            return True
        return True

    def taken(self, name: str) -> bool:
        """Return whether somebody claimed what is named."""
        return self._folder is not None and (self._folder / name).exists()


def claims_beside(path: Path) -> Claims:
    """Return the claims of a replay, shared by its processes if its director made the folder `<path>.claims`.

    The path is that of the tape in a replay, that of the intervention in a fork.
    """
    folder = path.with_name(path.name + ".claims")
    return Claims(folder if folder.is_dir() else None)
