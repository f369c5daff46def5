"""Programs that are started: those that talk to a model themselves, and Pythons that are not reached."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from ..session.interpreter import ISOLATING, is_python, isolating_option, program_of, shebang
from ..session.session import Session
from ..wire.registry import is_model_host
from .noting import at, caller, is_allowed, is_allowed_program, leaked, missed, note_once

MODEL_PROGRAMS = ("aider", "claude", "codex", "copilot", "cursor-agent", "gemini", "llm", "opencode")
"""Programs that call a model themselves, whatever their arguments say."""
FETCHING_PROGRAMS = ("curl", "http", "https", "wget", "xh")
"""Programs that request the URLs among their arguments."""
SHELLS = ("bash", "dash", "sh", "zsh")
STARTED = ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.system", "os.spawn")
"""Audit events of a program's start."""

_OTHER_USERS = ("doas", "runuser", "su", "sudo")
"""Programs that start others with an environment of its own user."""
_LAUNCHERS = (
    *("!", "chrt", "command", "conda", "do", "else", "env", "exec", "flock", "hatch", "if", "ionice", "nice"),
    *("nohup", "numactl", "pdm", "pipenv", "pixi", "poetry", "rye", "setsid", "stdbuf", "strace", "taskset"),
    *("then", "time", "timeout", "tracefork-otel", "unbuffer", "uv", "while", "xargs", "xvfb-run", "{"),
    *_OTHER_USERS,
)
"""Programs, and words of a shell, after which the program that they start follows."""
_EMPTYING = ("-", "-i", "--ignore-environment", "PYTHONPATH", "--unset=PYTHONPATH", "-uPYTHONPATH")
"""Words of `env` that take away what we hand down."""
_ASKING = ("-V", "-VV", "--version", "-h", "--help", "--help-all", "-?")
"""Options of Python that run nothing."""
_SUPERVISOR = os.path.join("agents", "supervisor.py")
"""Our own: it starts agents of replays and forks, each with an environment of ours."""
_URL = re.compile(r"http(s?)://(?:[^/@\s'\"]*@)?(\[[^\]\s]+\]|[^/:?#\s'\";|&)]+)(?::(\d+))?", re.I)
_WORDS = re.compile(r"[^\s'\";|&()]+")
_COMMANDS = re.compile(r"[;|&()\n]+")
"""What stands between the commands of a shell's line."""
_ASSIGNED = re.compile(r"\w+=")


def commands_of(event: str, args: tuple[Any, ...]) -> list[list[str]]:
    """Return what is started, each of a shell's line, with its arguments as far as they are text."""
    if event == "subprocess.Popen":
        given = args[1] if args[1] is not None else [args[0]]
    elif event == "os.system":
        given = args[0]
    else:  # (path, argv, …), except for os.spawn, which begins with its mode
        given = args[2] if event == "os.spawn" else args[1]
    if isinstance(given, (str, bytes, os.PathLike)):
        return _commands(os.fsdecode(given))
    words = [os.fsdecode(word) for word in given if isinstance(word, (str, bytes, os.PathLike))]
    line = _line_of(words)
    if line is not None:
        return _commands(line)
    return [words] if words else []


def _line_of(words: Sequence[str]) -> str | None:
    """Return the line that a shell is given (`sh -c LINE`, `bash -lc LINE NAME`), if that is what starts."""
    if not words or os.path.basename(words[0]) not in SHELLS:
        return None
    options = list(takewhile(lambda word: word.startswith("-"), words[1:]))
    given = any("c" in option for option in options if not option.startswith("--"))
    return words[len(options) + 1] if given and len(words) > len(options) + 1 else None


def _commands(line: str) -> list[list[str]]:
    return [words for part in _COMMANDS.split(line) if (words := _WORDS.findall(part))]


def starting(session: Session, commands: Sequence[Sequence[str]], *, watching: bool) -> None:
    """Note a program that talks to a model, or in a replay to anybody; and a Python that is not reached."""
    if not commands:
        return
    for command in commands:
        left = leaving(command)
        if left is not None:
            _left(session, *left)
    words = [word for command in commands for word in command]
    programs = [os.path.basename(word) for word in words]
    if is_python(programs[0]) or not (watching or session.settings.mode == "record"):
        return
    fetching = next((name for name in programs if name in FETCHING_PROGRAMS), None)
    client, called_at = fetching or programs[0], caller()
    known = client in MODEL_PROGRAMS
    places = [place for word in words for place in _places(word)]
    if fetching:  # `curl api.openai.com/v1/models` is a URL too
        bare = [word.split("/")[0].lower() for word in words]
        places += [(host, 443) for host in bare if is_model_host(host)]
    elif known and not places:
        places = [(client, 443)]  # wherever it talks to
    if not (fetching or known):
        places = [place for place in places if is_model_host(place[0])]
    if watching:
        for host, port in places:
            if not is_allowed(session, host, port):
                leaked(session, host, port, f"the program {client}", called_at)
        return
    model = next((host for host, _ in places if is_model_host(host)), None)
    if model is not None:
        missed(session, model, client, called_at, f"the program {client} called {model}{at(called_at)}")
    elif known:
        what = f"the program {client}, which calls a model, was started{at(called_at)}"
        missed(session, client, client, called_at, what)


def leaving(words: Sequence[str]) -> tuple[str, str] | None:
    """Return name and reason of a Python among the words that our start-up hook does not reach."""
    place = _python_at(words)
    if place is None:
        found = shutil.which(words[0])
        line = shebang(found) if found else []
        place = _python_at(line)
        if place is None:
            return None
        words = [*line, *words]
    before, argv = [os.path.basename(word) for word in words[:place]], words[place:]
    if len(argv) > 1 and argv[1] in _ASKING:
        return None
    isolating = isolating_option(argv)
    if isolating is not None:
        return program_of(argv), f"-{isolating[1]} keeps Python from reading {ISOLATING[isolating[1]]}"
    by = next((word for word in before if word in _OTHER_USERS), None)
    if by is None and "env" in before and not set(_EMPTYING).isdisjoint(before):
        by = "env"
    return None if by is None else (program_of(argv), f"{by} starts it with an environment of its own")


def _python_at(words: Sequence[str]) -> int | None:
    """Return the place of the Python that the words start; one that is a mere argument is none.

    What launchers take before their program are options, numbers, files and names, of which none can be run.
    """
    launched = False
    for place, word in enumerate(words):
        name = os.path.basename(word)
        if is_python(name):
            return place
        if name in _LAUNCHERS or (name in SHELLS and words[place + 1 : place + 2] == ["-c"]):
            launched = True
        elif _ASSIGNED.match(word) is None and (not launched or shutil.which(word) is not None):
            return None
    return None


def _left(session: Session, program: str, why: str) -> None:
    recording = session.settings.mode == "record"
    if recording and not session.launched:
        return  # nothing is handed down without `run`: each records by a line of its own, or not
    if is_allowed_program(session, program) or (recording and program == os.path.basename(_SUPERVISOR)):
        return
    called_at = caller()
    by = f"the program {program}, which was started{at(called_at)} and is not reached: {why}"
    if recording:
        why = f"{by}; what it exchanged is not recorded"
        note_once(session, "incomplete", f"{program} {why}", {"host": program, "client": program, "why": why})
    else:
        attributes = {"host": program, "client": program, "caller": by}
        note_once(session, "leak", program, attributes)


def _places(word: str) -> Iterator[tuple[str, int]]:
    for url in _URL.finditer(word):
        yield url[2].strip("[]").lower(), int(url[3] or (443 if url[1] else 80))
