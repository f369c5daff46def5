"""How Python is started: which words of a command are its own, and which keep it from being reached."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress

ISOLATING = {"I": "PYTHONPATH", "E": "PYTHONPATH", "S": "site"}
"""Options of the interpreter that keep our start-up hook from running, and what they keep it from reading."""
_TAKES_WORD = ("-W", "-X", "--check-hash-based-pycs")
"""Options that take the word after them, so that it is not read as the script."""
_PYTHON = re.compile(r"(?:python|pypy)(?:\d+(?:\.\d+)?)?[a-z]?")
_SHEBANG_LENGTH = 256
"""No kernel reads more of a script's first line."""


def is_python(word: str) -> bool:
    """Return whether a command's word names a Python interpreter."""
    return _PYTHON.fullmatch(os.path.basename(word)) is not None


def own_words(argv: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the options that Python is started with, and last the word that says what it runs, by place."""
    words = iter(enumerate(argv[1:], 1)) if is_python(argv[0]) else iter(())
    for at, word in words:
        if word in _TAKES_WORD:
            next(words, None)
            continue
        yield at, word
        if not word.startswith("-") or word in ("-c", "-m", "-"):
            return


def isolating_option(argv: Sequence[str]) -> tuple[int, str] | None:
    """Return place and letter of `-I`, `-E` or `-S` if Python is started with one, maybe among others."""
    for at, word in own_words(argv):
        if word in ("-c", "-m") or not word.startswith("-"):
            return None
        for letter in "" if word.startswith("--") else word[1:]:
            if letter in ISOLATING:
                return at, letter
            if letter in "cmWX":
                return None
    return None


def program_of(argv: Sequence[str]) -> str:
    """Return the short name of what a command runs: the script or module of Python, else the program."""
    program = argv[0]
    for at, word in own_words(argv):
        if word == "-m":
            return next(iter(argv[at + 1 :]), "python")
        if word.startswith("-") and not word.startswith("--") and word.endswith("m"):  # -Im, -um
            return next(iter(argv[at + 1 :]), "python")
        if word == "-c" or (word.startswith("-") and not word.startswith("--") and word.endswith("c")):
            return "python -c"
        if not word.startswith("-"):
            program = word
    return os.path.basename(program)


def shebang(path: str) -> list[str]:
    """Return the words of a script's first line that say what runs it; none where it is no script."""
    with suppress(OSError), open(path, "rb") as file:
        line = file.read(_SHEBANG_LENGTH).partition(b"\n")[0]
        if line.startswith(b"#!"):
            return os.fsdecode(line[2:]).split()
    return []
