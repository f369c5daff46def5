"""A command that Python runs, as far as another Python can run it in its place."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tracefork_otel.session.interpreter import is_python, own_words, shebang

Runs: TypeAlias = Literal["script", "-m", "-c"]

_PLAIN = re.compile(r"-(?:[uOBsqb]+|[WX].+)")
"""Options that another process of the same Python can be started with to the same end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a Python is told to run."""

    python: tuple[str, ...]
    """The interpreter with its options."""
    runs: Runs
    of: str
    """The script's path, the module's name, or the code."""
    arguments: tuple[str, ...]
    argv: tuple[str, ...]
    """All its words."""
    imported: Path
    """Where one that ran told what it had imported."""

    @property
    def name(self) -> str:
        """Return the command in one line."""
        return " ".join(self.argv)

    def told(self) -> dict[str, object]:
        """Return it as JSON for the process that is to run it."""
        return {
            "runs": self.runs,
            "of": self.of,
            "arguments": self.arguments,
            "argv": self.argv,
            "imported": str(self.imported),
        }


def python_program(
    argv: Sequence[str], *, env: Mapping[str, str], folder: Path, imported: Path
) -> Program | None:
    """Return the program that this command has a Python run; None where that is not all that it does.

    So a folder or an archive that is run, code from standard input, and a Python that is isolated.
    """
    words = list(argv)
    if not is_python(words[0]):
        named = os.sep in words[0]
        script = words[0] if named else shutil.which(words[0], path=env.get("PATH"))
        line = [] if script is None else shebang(str(folder / script))
        if script is None or not line or not is_python(line[0]):
            return None
        words = [*line, script, *words[1:]]
    own = list(own_words(words))
    if not own:
        return None
    at, last = own[-1]
    options = words[1:at]
    if last in ("-c", "-m"):
        if at + 1 >= len(words):
            return None
        runs: Runs = "-c" if last == "-c" else "-m"
        of, arguments = words[at + 1], words[at + 2 :]
    elif last.startswith("-"):
        return None
    else:
        runs, of, arguments = "script", last, words[at + 1 :]
        path = folder / of
        if not path.is_file() or path.suffix in (".pyc", ".pyz", ".zip"):
            return None
    if not _are_plain(options):
        return None
    return Program(
        python=(words[0], *options),
        runs=runs,
        of=of,
        arguments=tuple(arguments),
        argv=tuple(words),
        imported=imported,
    )


def _are_plain(options: Sequence[str]) -> bool:
    words = iter(options)
    for word in words:
        if word in ("-W", "-X"):
            next(words, None)
        elif not _PLAIN.fullmatch(word):
            return False
    return True
