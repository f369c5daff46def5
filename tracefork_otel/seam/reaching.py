"""Lines of shells that give what they start another `PYTHONPATH`, with our entry put before it.

Only where it is sure which words are such an assignment; any other line stays, and is named.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from itertools import takewhile

from .lines import SHELLS, program_at

_NAME = "PYTHONPATH="
_OPENING = ("!", "do", "elif", "else", "env", "exec", "export", "if", "then", "time", "until", "while", "{")
"""Words after which an assignment is one still, where they begin a command."""
_UNSURE = re.compile(
    r"""<<|`|\(\(|=\(|\$'|\\\n|"[^"]*\$\(|\$\{[^}]*[\s;&|()'"]|(?:^|\s)\#|(?:^|\W)(?:case|eval|set|alias)\W"""
)
"""What makes text of words, prints what it runs, or quotes otherwise."""
_LITERAL = re.compile(r"[\w./-]")
_EXPANDED = re.compile(r"\$(?:\w+|\{[^}]*\}|\([^)]*\))")
_SEPARATORS = frozenset(";&|()\n")
_BLANK = frozenset(" \t")


def in_words(words: Sequence[str], entry: str) -> list[str]:
    """Return what is started, a launcher's assignments and a shell's line with the entry where it is sure."""
    changed = list(words)
    place = program_at(words)
    if place is None:
        return changed
    if any(os.path.basename(word) == "env" for word in words[:place]):
        for at, word in enumerate(words[:place]):
            if word.startswith(_NAME):
                changed[at] = _before(word, entry)
    if os.path.basename(words[place]) in SHELLS:
        options = list(takewhile(lambda word: word.startswith("-"), words[place + 1 :]))
        short = "".join(option for option in options if not option.startswith("--"))
        line = place + 1 + len(options)
        if "c" in short and not {"x", "v"} & set(short) and line < len(words):
            changed[line] = in_line(words[line], entry)
    return changed


def in_line(line: str, entry: str) -> str:
    """Return the line with the entry first in each `PYTHONPATH` that it gives, as far as that is sure."""
    if _NAME not in line or _UNSURE.search(line):
        return line
    found: list[str] = []
    begin, opened, by_env = 0, True, False
    for begin, end, ended in _words(line):
        word = line[begin:end]
        if opened and word.startswith(_NAME):
            word = _quoted(word, entry, by_env=by_env)
        elif word in _OPENING:
            by_env = by_env or (opened and word == "env")
        elif word and not re.match(r"\w+=", word) and not (by_env and word.startswith("-")):
            opened = False
        found.append(word + ended)
        if _SEPARATORS & set(ended):
            opened, by_env = True, False
    return "".join(found) or line


def _before(word: str, entry: str) -> str:
    """Return the assignment, as it reaches its program, with the entry first."""
    value = word.removeprefix(_NAME)
    return word if entry in value.split(os.pathsep) else _NAME + os.pathsep.join(filter(None, (entry, value)))


def _quoted(word: str, entry: str, *, by_env: bool) -> str:
    """Return the same of a word as it stands in the line; the word itself where its value may be empty."""
    value = word.removeprefix(_NAME)
    if value in ("", "''", '""'):
        return _NAME + shlex.quote(entry)
    sure = _LITERAL.search(_EXPANDED.sub("", value)) and not (by_env and "~" in value)
    if not sure or "PYTHONPATH" in value or entry in value:
        return word
    return f"{_NAME}{shlex.quote(entry)}{os.pathsep}{value}"


def _words(line: str) -> list[tuple[int, int, str]]:
    """Return where each word begins and ends, quotes and all, and what stands between it and the next.

    A line whose last quote is open has none.
    """
    found: list[tuple[int, int, str]] = []
    at = 0
    while at < len(line):
        begin = at
        quote = ""
        while at < len(line):
            char = line[at]
            if quote:
                quote = "" if char == quote else quote
                at += 1 if quote != '"' or char != "\\" else 2
                continue
            if char in "'\"":
                quote = char
            elif char == "\\":
                at += 1
            elif char in _BLANK or char in _SEPARATORS:
                break
            at += 1
        if quote:
            return []
        end = at = min(at, len(line))
        while at < len(line) and (line[at] in _BLANK or line[at] in _SEPARATORS):
            at += 1
        found.append((begin, end, line[end:at]))
    return found
