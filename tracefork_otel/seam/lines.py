"""What a command starts: the commands of a shell's line, below whatever launchers they stand."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any

from ..session.interpreter import is_python, shebang

SHELLS = ("ash", "bash", "dash", "ksh", "sh", "zsh")
STARTED = ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.system", "os.spawn")
"""Audit events of a program's start."""
MODEL_PROGRAMS = ("aider", "claude", "codex", "copilot", "cursor-agent", "gemini", "llm", "opencode")
"""Programs that call a model themselves, whatever their arguments say."""
FETCHING_PROGRAMS = ("curl", "http", "https", "wget", "xh")
"""Programs that request the URLs among their arguments."""
INTERPRETERS = (
    *("bun", "bunx", "cargo", "deno", "dotnet", "elixir", "erl", "go", "groovy", "java", "julia", "kotlin"),
    *("lua", "luajit", "node", "nodejs", "npm", "npx", "perl", "php", "pnpm", "pwsh", "R", "Rscript", "ruby"),
    *("scala", "swift", "ts-node", "tsx", "yarn"),
)
"""Programs that run those of other languages, which may ask whom they want."""
OTHER_USERS = ("doas", "runuser", "su", "sudo")
"""Programs that start others with an environment of its own user."""

_TAKES_LINE = ("flock", "runuser", "script", "su")
"""Launchers that take a shell's line by their option `-c`."""
_LAUNCHERS = (
    *("!", "caffeinate", "chrt", "command", "conda", "do", "elif", "else", "env", "exec", "hatch", "if"),
    *("ionice", "nice", "nohup", "numactl", "parallel", "pdm", "pipenv", "pixi", "poetry", "prlimit", "rye"),
    *("setarch", "setsid", "stdbuf", "strace", "systemd-run", "taskset", "then", "time", "timeout"),
    *("tini", "tracefork-otel", "unbuffer", "unshare", "until", "uv", "watch", "while", "xargs", "xvfb-run"),
    *("{", *OTHER_USERS, *_TAKES_LINE),
)
"""Programs, and words of a shell, after which the program that they start follows."""
_EXECUTES = ("-exec", "-execdir", "-ok", "-okdir")
"""Options of `find` after which a program follows."""
_SPLITS = ("-S", "--split-string")
"""Options of `env` whose value is several words."""
_READING = (".", "source")
"""What reads a script as if it stood there."""
_SETTLING = ("export", "unset")
_SEPARATORS = frozenset(";|&()\n")
_BLANK = frozenset(" \t\r")
_ASSIGNED = re.compile(r"(\w+)=")
_VARIABLE = re.compile(r"\$(?:\{(\w+)[^}]*\}|(\w+)|([@*]))")
_REDIRECTED = re.compile(r"\d*(?:<{1,3}-?|>{1,2}\|?)")
_KEPT = "PYTHONPATH"
"""Stays by its name: whether a value has the one before it is what is asked."""
_DEPTH = 8
"""So often a line stands in a line, and no deeper."""
_SCRIPTS = 32
"""So many scripts of one command are read."""
_LONGEST = 1 << 16
"""So many characters of a line, or of a shell's script, are read."""


def commands_of(event: str, args: tuple[Any, ...]) -> list[list[str]]:
    """Return what is started, each of a shell's line, with its arguments as far as they are text."""
    if event == "subprocess.Popen":
        given = args[1] if args[1] is not None else [args[0]]
    elif event == "os.system":
        given = args[0]
    else:  # (path, argv, …), except for os.spawn, which begins with its mode
        given = args[2] if event == "os.spawn" else args[1]
    if isinstance(given, (str, bytes, os.PathLike)):
        return list(_commands(os.fsdecode(given)))
    words = [os.fsdecode(word) for word in given if isinstance(word, (str, bytes, os.PathLike))]
    return list(_below(words)) if words else []


def folder_of(event: str, args: tuple[Any, ...]) -> str:
    """Return the folder in which it is started."""
    folder = args[2] if event == "subprocess.Popen" else None
    return os.fsdecode(folder) if isinstance(folder, (str, bytes, os.PathLike)) else ""


def in_scripts(commands: Sequence[Sequence[str]], folder: str, beside: str = "") -> Iterator[list[str]]:
    """Yield the commands in the scripts of shells that these start, whether they will run or not.

    Also of scripts that those start, or read (`. FILE`), which may say something of the environment of what
    follows; `beside` is the script in which these stand.
    """
    yield from _in_scripts(commands, folder, beside, {})


def _in_scripts(
    commands: Sequence[Sequence[str]],
    folder: str,
    beside: str,
    read: dict[tuple[str, frozenset[str]], list[str]],
) -> Iterator[list[str]]:
    carried: list[str] = []
    for words in commands:
        if carried:
            yield [*carried, *words]
        place = program_at(words, folder)
        if place is None:
            continue
        if words[place] in _READING:
            path = next(iter(words[place + 1 :]), None)
        elif os.path.basename(words[place]) in SHELLS:
            path = next((word for word in words[place + 1 :] if not word.startswith("-")), None)
        else:
            path = found_in(folder, _by(words[place], beside))
            if path is None or not any(os.path.basename(word) in SHELLS for word in shebang(path)):
                continue
        if path is None:
            continue
        path, before = os.path.join(folder, _by(path, beside)), [*carried, *words[:place]]
        once = (path, frozenset(before))
        if once not in read and len(read) < _SCRIPTS:  # else it has been read: one may start itself
            text = _script(path)
            read[once] = [word for line in _simple(text, (), 0) for word in _settled(line)]
            lines = [[*before, *line] for line in _commands(text)]
            yield from lines
            yield from _in_scripts(lines, folder, path, read)
        if words[place] in _READING:
            carried = list(dict.fromkeys((*carried, *read.get(once, ()))))


def _by(path: str, beside: str) -> str:
    """Return the path where it begins with what is put in the place of an output, as `$(dirname "$0")` is."""
    return os.path.join(os.path.dirname(beside), path[2:]) if beside and path.startswith("$/") else path


def program_at(words: Sequence[str], folder: str = "") -> int | None:
    """Return the place of the program that the words start, below launchers.

    What launchers take before their program are options, numbers, files and names, of which none can be run.
    """
    launched = False
    for place, word in enumerate(words):
        if os.path.basename(word) in _LAUNCHERS:
            launched = True
        elif assigned(word) is None and (not launched or _runs(word, folder)):
            return place
    return None


def assigned(word: str) -> str | None:
    """Return the variable that the word gives a value to; None if it does not."""
    found = _ASSIGNED.match(word)
    return None if found is None else found[1]


def found_in(folder: str, program: str) -> str | None:
    """Return where a program lies that is started in this folder; None where there is none."""
    return shutil.which(os.path.join(folder, program) if os.sep in program else program)


def _runs(word: str, folder: str) -> bool:
    if word.startswith("-"):
        return False
    name = os.path.basename(word)
    known = is_python(name) or name in (*SHELLS, *MODEL_PROGRAMS, *FETCHING_PROGRAMS)
    return known or found_in(folder, word) is not None


def _script(path: str) -> str:
    with suppress(OSError, ValueError):
        if os.path.isfile(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read(_LONGEST)
    return ""


def _commands(line: str, given: Sequence[str] = (), depth: int = 0) -> Iterator[list[str]]:
    """Yield the commands of a shell's line, which has these for `$0`, `$1`, …

    What the line itself says of the environment stands before each of the commands that follow.
    """
    carried: list[str] = []
    for words in _simple(line[:_LONGEST], given, depth):
        if words[0] in _SETTLING or all(assigned(word) is not None for word in words):
            carried += _settled(words)
        else:
            yield from _below([*carried, *words], depth)


def _settled(words: Sequence[str]) -> list[str]:
    """Return what a simple command says of the environment of those that follow it."""
    if words[0] in _SETTLING:
        said = [f"{name}=" if words[0] == "unset" else name for name in words[1:]]
        return [word for word in said if assigned(word) is not None]
    return [*words] if all(assigned(word) is not None for word in words) else []


def _below(words: list[str], depth: int = 0) -> Iterator[list[str]]:
    """Yield the command, or those of the line that a shell below its launchers is given."""
    words = _split(words)
    place = program_at(words)
    before, name = words[:place], "" if place is None else os.path.basename(words[place])
    nested: Iterator[list[str]] = iter(())
    if depth < _DEPTH:
        line = None if place is None else _line_of(words[place:])
        if line is not None:
            nested = _commands(*line, depth + 1)
        elif place is not None and name == "eval":
            nested = _commands(" ".join(words[place + 1 :]), (), depth + 1)
        elif place is not None and name == "find":
            at = [place for place, word in enumerate(words) if word in _EXECUTES]
            nested = (one for place in at for one in _below(words[place + 1 :], depth + 1))
        else:
            by = [os.path.basename(word) in _TAKES_LINE for word in words[:place]]
            at = by.index(True) if True in by else len(words)
            line = next((words[at + 1] for at in range(at + 1, len(words) - 1) if _is_c(words[at])), None)
            nested = iter(()) if line is None else _commands(line, (), depth + 1)
            before = words[: at + 1]
    found = [[*before, *command] for command in nested]
    yield from found or [words]


def _is_c(option: str) -> bool:
    return option in ("--command", "--session-command") or (
        option.startswith("-") and not option.startswith("--") and option.endswith("c")
    )


def _line_of(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """Return the line that a shell is given (`sh -c LINE`, `bash -lc LINE NAME`), and what follows it."""
    if os.path.basename(words[0]) not in SHELLS:
        return None
    options = list(takewhile(lambda word: word.startswith("-"), words[1:]))
    given = any("c" in option for option in options if not option.startswith("--"))
    rest = list(words[len(options) + 1 :])
    return (rest[0], rest[1:]) if given and rest else None


def _split(words: list[str]) -> list[str]:
    """Return the words with those of `env -S` each of its own."""
    for place, word in enumerate(words):
        if os.path.basename(words[0]) != "env" and "env" not in words[:place]:
            continue
        option, joined, value = word.partition("=")
        if word in _SPLITS and place + 1 < len(words):
            return [*words[:place], *words[place + 1].split(), *words[place + 2 :]]
        if joined and option in _SPLITS:
            return [*words[:place], *value.split(), *words[place + 1 :]]
        if word.startswith("-S") and len(word) > 2:
            return [*words[:place], *word[2:].split(), *words[place + 1 :]]
    return words


def _simple(line: str, given: Sequence[str], depth: int) -> Iterator[list[str]]:
    """Yield the simple commands of a line, quotes taken off; those that stand in others come first."""
    words: list[str] = []
    word: str | None = None
    known: dict[str, str] = {str(place): one for place, one in enumerate(given)}
    quote, at = "", 0
    while at < len(line):
        char = line[at]
        if quote == "'":
            quote, word = ("", word) if char == "'" else (quote, (word or "") + char)
        elif char == "\\":
            at += 1
            word = (word or "") + line[at : at + 1].replace("\n", "")
        elif char == "`" or line.startswith("$(", at):
            end = _end(line, at)
            if depth < _DEPTH:
                yield from _commands(line[at:end].strip("$`").removeprefix("("), given, depth + 1)
            word, at = (word or "") + "$", end
        elif char == "$" and (variable := _VARIABLE.match(line, at)) is not None:
            if variable[3]:  # all that was given, each a word
                words, word = [*words, *given[1:]], None
            else:
                value = _value(variable, known)
                first, *others = [value] if quote else value.split() or [""]
                word = (word or "") + first
                if others:
                    words, word = [*words, word, *others[:-1]], others[-1]
            at = variable.end() - 1
        elif char == '"' or (char == "'" and not quote):
            quote, word = ("", word) if quote else (char, word or "")
        elif quote:
            word = (word or "") + char
        elif char == "#" and word is None:
            at = (line.find("\n", at) if "\n" in line[at:] else len(line)) - 1
        elif char in _BLANK or (char in _SEPARATORS and not (char == "&" and (word or "").endswith(">"))):
            words, word = [*words, *([] if word is None else [word])], None
            if char in _SEPARATORS and words:
                known.update(_assignments(words))
                yield from _without_redirections(words)
                words = []
        else:
            word = (word or "") + char
        at += 1
    words = [*words, *([] if word is None else [word])]
    yield from _without_redirections(words)


def _end(line: str, begin: int) -> int:
    """Return the place of the last character of what is put in the place of its output."""
    if line[begin] == "`":
        end = line.find("`", begin + 1)
        return len(line) if end < 0 else end
    depth = 0
    for at in range(begin + 1, len(line)):
        depth += (line[at] == "(") - (line[at] == ")")
        if depth == 0:
            return at
    return len(line)


def _value(variable: re.Match[str], known: Mapping[str, str]) -> str:
    name = variable[1] or variable[2]
    if name == _KEPT:
        return variable[0]
    value = known.get(name)
    return value if value is not None else os.environ.get(name, variable[0])


def _assignments(words: Sequence[str]) -> dict[str, str]:
    begin = 1 if words[0] == "export" else 0
    parts = (word.partition("=") for word in words[begin:] if assigned(word) is not None)
    return {name: value for name, _, value in parts}


def _without_redirections(words: Sequence[str]) -> Iterator[list[str]]:
    kept: list[str] = []
    left = iter(words)
    for word in left:
        found = _REDIRECTED.match(word)
        if found is None:
            kept.append(word)
        elif found.end() == len(word):
            next(left, None)
    if kept:
        yield kept
