"""Programs that are started: those that talk to a model themselves, and Pythons that are not reached."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from ..session.interpreter import ISOLATING, is_python, isolating_option, program_of, shebang
from ..session.session import Session
from ..wire.registry import is_model_host
from .children import BOOT
from .lines import FETCHING_PROGRAMS, MODEL_PROGRAMS, OTHER_USERS, found_in, in_scripts, program_at
from .noting import at, caller, is_allowed, is_allowed_program, leaked, missed, note_once

_EMPTYING = ("-", "-i", "--ignore-environment", "PYTHONPATH", "--unset=PYTHONPATH", "-uPYTHONPATH")
"""Words of `env` that take away what we hand down."""
_UNSETTING = ("-u", "--unset")
_ASKING = ("-V", "-VV", "--version", "-h", "--help", "--help-all", "-?")
"""Options of Python that run nothing."""
_SUPERVISOR = os.path.join("agents", "supervisor.py")
"""Our own: it starts agents of replays and forks, each with an environment of ours."""
_URL = re.compile(r"http(s?)://(?:[^/@\s'\"]*@)?(\[[^\]\s]+\]|[^/:?#\s'\";|&)]+)(?::(\d+))?", re.I)


def starting(session: Session, commands: Sequence[Sequence[str]], folder: str, *, watching: bool) -> None:
    """Note a program that talks to a model, or in a replay to anybody; and a Python that is not reached."""
    if not commands:
        return
    recording = session.settings.mode == "record"
    for command in (*commands, *in_scripts(commands, folder)):
        left = leaving(command, folder, recording=recording)
        if left is not None:
            _left(session, *left)
    words = [word for command in commands for word in command]
    if is_python(words[0]) or not (watching or recording):
        return
    started = [os.path.basename(one[program_at(one, folder) or 0]) for one in commands]
    fetching = next((name for name in map(os.path.basename, words) if name in FETCHING_PROGRAMS), None)
    asking = next((name for name in started if name in MODEL_PROGRAMS), None)
    client, called_at = fetching or asking or started[0], caller()
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


def leaving(words: Sequence[str], folder: str = "", *, recording: bool = True) -> tuple[str, str] | None:
    """Return name and reason of a Python among the words that our start-up hook does not reach.

    In a recording an agent may leave out on purpose what it starts; in a replay nobody leaves.
    """
    place = program_at(words, folder)
    if place is None:
        return None
    if not is_python(words[place]):
        found = found_in(folder, words[place])
        line = shebang(found) if found else []
        interpreter = program_at(line)
        if interpreter is None or not is_python(line[interpreter]):
            return None
        words = [*words[:place], *line, *words[place:]]
        place += interpreter
    before, argv = words[:place], words[place:]
    if len(argv) > 1 and argv[1] in _ASKING:
        return None
    program = program_of(argv)
    if program.startswith(("$", "{", "-")):  # what only the shell or `xargs` knows, or its standard input
        program = os.path.basename(argv[0])
    isolating = isolating_option(argv)
    if isolating is not None:
        return program, f"-{isolating[1]} keeps Python from reading {ISOLATING[isolating[1]]}"
    why = _taken_away(before, recording)
    return None if why is None else (program, why)


def _taken_away(before: Sequence[str], recording: bool) -> str | None:
    """Return how the words before a Python take away what we hand down."""
    names = [os.path.basename(word) for word in before]
    by = next((name for name in names if name in OTHER_USERS), None)
    if by is None and "env" in names and any(_empties(before, at) for at in range(len(before))):
        by = "env"
    if by is not None:
        return f"{by} starts it with an environment of its own"
    for word in before:
        name, _, value = word.partition("=")
        if name == "PYTHONPATH" and word != name and not (name in value or BOOT in value):
            return (
                f"its PYTHONPATH is {value or 'empty'}, without what was there (`PYTHONPATH=…:$PYTHONPATH`)"
            )
        if not recording and name == "TRACEFORK_MODE" and word != name:
            return f"its TRACEFORK_MODE is {value or 'empty'}"
    return None


def _empties(words: Sequence[str], place: int) -> bool:
    return words[place] in _EMPTYING and (words[place] != "PYTHONPATH" or words[place - 1] in _UNSETTING)


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
