"""Claims that all processes of a replay or fork share: who took which part of it, as files of a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Claim: TypeAlias = Callable[[str], bool]
"""Takes what is named; True at most once among all processes of a replay."""

AGAIN = "again"
"""The forked exchange's recorded answer, for a client that tries again after the intervention."""
OFF_TAPE = "off-tape"
"""Taken by a fork whose prefix left its tape."""


def step(number: int) -> str:
    """Return the name of the claim to a recorded exchange."""
    return f"step-{number}"


def place(number: int) -> str:
    """Return the name of the claim to a place in a fork's own run."""
    return f"place-{number}"


def tool(number: int) -> str:
    """Return the name of the claim to a recorded call of a tool."""
    return f"tool-{number}"


def change(number: int) -> str:
    """Return the name of the claim to a result that a fork replaces, in the order of its changes."""
    return f"change-{number}"


def draws(number: int) -> str:
    """Return the name of the claim to the draws of a recorded process."""
    return f"draws-{number}"


def memory(number: int) -> str:
    """Return the name of the claim to an answer that an earlier trial got."""
    return f"memory-{number}"


class Claims:
    """Claims as files, each of which only one process can create.

    So two processes that send equal requests get the two recorded answers, not the first one twice.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str) -> bool:
        """Claim what is named; return whether nobody did before."""
        try:
            os.close(os.open(self._folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
        except OSError:  # the folder went away: each process keeps its own count
            return True
        return True

    def taken(self, name: str) -> bool:
        """Return whether somebody claimed what is named."""
        return (self._folder / name).exists()


def claims_beside(path: Path) -> Claims | None:
    """Return the claims that a replay's processes share, if its director made the folder `<path>.claims`.

    The path is that of the tape in a replay, that of the intervention in a fork.
    """
    folder = path.with_name(path.name + ".claims")
    return Claims(folder) if folder.is_dir() else None
