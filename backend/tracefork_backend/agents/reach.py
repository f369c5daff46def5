"""Which processes a recorded command reached, and why it reached none."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tracefork_otel.errors import StoreError
from tracefork_otel.store.records import Note, ProcessStarted
from tracefork_otel.store.wal import wal_files
from tracefork_otel.store.wal_reading import read_wal

_NAME_LENGTH = 60

# Options of the interpreter that keep our start-up hook from running.
_ISOLATING = {"I": "PYTHONPATH", "E": "PYTHONPATH", "S": "site"}
# Options that take the word after them, so that it is not read as the script.
_TAKES_WORD = ("-W", "-X", "--check-hash-based-pycs")


def reached(
    store: Path, launch_id: str
) -> tuple[list[ProcessStarted], list[Mapping[str, Any]], tuple[str, ...]]:
    """Return the processes of a launch that recorded, notes of those that could not, and what went round."""
    processes: list[ProcessStarted] = []
    round_us: dict[str, None] = {}
    for path in wal_files(store):
        with contextlib.suppress(StoreError):
            contents = read_wal(path, keep=lambda span, side, body: b"")
            process = contents.process
            if process is not None and process.launch_id == launch_id and process.via != "backend":
                processes.append(process)
                for record in contents.records:
                    if isinstance(record, Note) and record.kind == "incomplete":
                        round_us[str(record.attributes.get("why", ""))] = None
    absent: list[Mapping[str, Any]] = []
    for path in sorted((store / "wal").glob("*.absent.json")):
        with contextlib.suppress(OSError, ValueError):
            found: Mapping[str, Any] = json.loads(path.read_text())
            if found.get("launch_id") == launch_id:
                absent.append(found)
    return processes, absent, tuple(round_us)


def why_nothing(
    argv: Sequence[str],
    processes: Sequence[ProcessStarted],
    absent: Sequence[Mapping[str, Any]],
    round_us: Sequence[str] = (),
) -> str:
    """Return why a command left no exchange, with the line that mends it."""
    if round_us:
        return (
            f"nothing captured: {'; '.join(round_us)}. If it can be given a base URL, record it from "
            f"outside: tracefork-otel run --proxy -- {' '.join(argv)}"
        )
    if processes:
        if has_client(processes):
            count = f"{len(processes)} process{'' if len(processes) == 1 else 'es'}"
            return (
                f"nothing captured: Python was reached ({count}), but made no request through httpx or "
                "httpx2; a client on requests, aiohttp or urllib is not recorded"
            )
        where = processes[0].executable
        return (
            f"nothing captured: {where} has neither httpx nor httpx2, through which model SDKs talk; "
            f"if the agent should have one: {where} -m pip install httpx2"
        )
    if absent:
        where = absent[0].get("executable", "the interpreter")
        return (
            f"nothing captured: {where} has no tracefork-otel; install it there: "
            f"{where} -m pip install tracefork-otel"
        )
    isolating = isolating_option(argv)
    if isolating is not None:
        at, letter = isolating
        rest = argv[at].replace(letter, "", 1)
        without = " ".join([*argv[:at], *([rest] if rest != "-" else []), *argv[at + 1 :]])
        return (
            f"nothing captured: -{letter} keeps Python from reading {_ISOLATING[letter]}; run it without: "
            f"tracefork-otel run -- {without}"
        )
    if is_python(argv[0]):
        return (
            f"nothing captured: {argv[0]} never ran our start-up hook; call "
            "tracefork_otel.TraceforkInstrumentor().instrument() at the top of the agent"
        )
    return (
        f"nothing captured: no Python process was reached from {argv[0]!r}; if it starts Python with -I or "
        "a cleared environment, call tracefork_otel.TraceforkInstrumentor().instrument() in the agent"
    )


def unwritable(store: Path) -> str | None:
    """Return why nothing can be written into this folder, None if it can."""
    try:
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=store):
            return None
    except OSError as error:
        return f"nothing captured: {store} cannot be written ({error.strerror}); name another with --store"


def has_client(processes: Sequence[ProcessStarted]) -> bool:
    """Return whether an interpreter among these can import a client that is captured."""
    probe = "import importlib.util as u, sys; sys.exit(not any(map(u.find_spec, ('httpx', 'httpx2'))))"
    env = {name: value for name, value in os.environ.items() if not name.startswith("TRACEFORK_")}
    for executable in dict.fromkeys(process.executable for process in processes):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            if subprocess.run([executable, "-c", probe], env=env, timeout=30, check=False).returncode == 0:
                return True
    return False


def is_python(word: str) -> bool:
    """Return whether a command's first word names a Python interpreter."""
    return os.path.basename(word).startswith(("python", "pypy"))


def _own_words(argv: Sequence[str]) -> Iterator[tuple[int, str]]:
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
    for at, word in _own_words(argv):
        if word in ("-c", "-m") or not word.startswith("-"):
            return None
        for letter in "" if word.startswith("--") else word[1:]:
            if letter in _ISOLATING:
                return at, letter
            if letter in "cmWX":
                return None
    return None


def program_of(argv: Sequence[str]) -> str:
    """Return the short name of what a command runs: the script or module of Python, else the program."""
    program = argv[0]
    for at, word in _own_words(argv):
        if word == "-m":
            return next(iter(argv[at + 1 :]), "python")
        if word == "-c":
            return "python -c"
        if not word.startswith("-"):
            program = word
    return os.path.basename(program)


def short_name(argv: Sequence[str]) -> str:
    """Return the command as a run's name: without the interpreter and folders, at most 60 characters."""
    program = program_of(argv)
    last = next((index for index, word in enumerate(argv) if os.path.basename(word) == program), len(argv))
    text = " ".join([program, *(word.replace("\n", " ") for word in argv[last + 1 :])])
    return text if len(text) <= _NAME_LENGTH else text[: _NAME_LENGTH - 1] + "…"
