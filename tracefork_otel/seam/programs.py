"""Programs that are started: those that talk to a model themselves, and Pythons that are not reached."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from ..session.interpreter import ISOLATING, is_python, isolating_option, program_of, shebang
from ..session.session import Session
from ..wire.registry import is_model_host
from .children import BOOT
from .lines import (
    FETCHING_PROGRAMS,
    INTERPRETERS,
    MODEL_PROGRAMS,
    OTHER_USERS,
    found_in,
    in_scripts,
    program_at,
)
from .noting import at, caller, is_allowed, is_allowed_program, leaked, missed, note_once

_EMPTYING = ("-", "-i", "--ignore-environment", "PYTHONPATH", "--unset=PYTHONPATH", "-uPYTHONPATH")
"""Words of `env` that take away what we hand down."""
_UNSETTING = ("-u", "--unset")
_ASKING = ("-V", "-VV", "--version", "-h", "--help", "--help-all", "-?")
"""Options of Python that run nothing."""
_SUPERVISOR = os.path.join("agents", "supervisor.py")
"""Our own: it starts agents of replays and forks, each with an environment of ours."""
_HELPERS = tuple(os.path.join("tracefork_backend", "agents", name) for name in ("hand_on.py", "witness.py"))
"""Our own, beside a command that is recorded: they talk to nobody."""
_URL = re.compile(r"http(s?)://(?:[^/@\s'\"]*@)?(\[[^\]\s]+\]|[^/:?#\s'\";|&)]+)(?::(\d+))?", re.I)


def starting(session: Session, commands: Sequence[Sequence[str]], folder: str, *, watching: bool) -> None:
    """Note a program that talks to a model, or in a replay to anybody; and a Python that is not reached."""
    commands = [command for command in commands if not any(word.endswith(_HELPERS) for word in command)]
    if not commands:
        return
    recording = session.settings.mode == "record"
    for program, why in out_of_reach(commands, folder, recording=recording):
        _left(session, program, why)
    if not (watching or recording):
        return
    called_at = caller()
    told: set[str] = set()
    for client, places in asked(commands, folder):
        told.add(client)
        if watching:
            for host, port in places:
                if not is_allowed(session, host, port):
                    leaked(session, host, port, f"the program {client}", called_at)
            continue
        model = model_of(client, places)
        if model is not None:
            missed(session, model, client, called_at, asks(client, model, at(called_at)))
    for command in commands:
        program = os.path.basename(command[program_at(command, folder) or 0])
        of_another_kind = program in INTERPRETERS or program in FETCHING_PROGRAMS
        if of_another_kind and program not in told and not is_allowed_program(session, program):
            started = {"program": program, "caller": at(called_at)}
            note_once(session, "program", program, started)


def out_of_reach(
    commands: Sequence[Sequence[str]], folder: str, *, recording: bool
) -> Iterator[tuple[str, str]]:
    """Yield name and reason of each Python that these start, or a shell's script of theirs, out of reach."""
    for command in (*commands, *in_scripts(commands, folder)):
        left = leaving(command, folder, recording=recording)
        if left is not None:
            yield left


def asked(commands: Sequence[Sequence[str]], folder: str) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Yield the programs of these that fetch or ask a model, and where, as far as their words tell."""
    for command in commands:
        program = os.path.basename(command[program_at(command, folder) or 0])
        if is_python(program):
            continue  # what it connects to is seen in it, or it is out of reach by name
        fetching = next((name for name in map(os.path.basename, command) if name in FETCHING_PROGRAMS), None)
        client = fetching or program
        known = client in MODEL_PROGRAMS
        places = [place for word in command for place in _places(word)]
        if fetching:  # `curl api.openai.com/v1/models` is a URL too
            bare = [word.split("/")[0].lower() for word in command]
            places += [(host, 443) for host in bare if is_model_host(host)]
        elif known and not places:
            places = [(client, 443)]  # wherever it talks to
        if not (fetching or known):
            places = [place for place in places if is_model_host(place[0])]
        if places:
            yield client, places


def model_of(client: str, places: Sequence[tuple[str, int]]) -> str | None:
    """Return the model's host among these, or the client's own name if it asks a model wherever that is."""
    model = next((host for host, _ in places if is_model_host(host)), None)
    return model or (client if client in MODEL_PROGRAMS else None)


def asks(client: str, model: str, where: str) -> str:
    """Return in words that the program asks a model, `where` being what follows that it was started."""
    if client == model:
        return f"the program {client}, which calls a model, was started{where}"
    return f"the program {client} called {model}{where}"


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
    by = not_reached(program, why, at(called_at))
    if recording:
        why = f"{by}; what it exchanged is not recorded"
        note_once(session, "incomplete", f"{program} {why}", {"host": program, "client": program, "why": why})
    else:
        attributes = {"host": program, "client": program, "caller": by}
        note_once(session, "leak", program, attributes)


def not_reached(program: str, why: str, where: str) -> str:
    """Return in words that the program ran out of reach, `where` being what follows that it was started."""
    return f"the program {program}, which was started{where} and is not reached: {why}"


def _places(word: str) -> Iterator[tuple[str, int]]:
    for url in _URL.finditer(word):
        yield url[2].strip("[]").lower(), int(url[3] or (443 if url[1] else 80))
