"""Which processes a recorded command reached, and why it reached none."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tracefork_otel.errors import StoreError
from tracefork_otel.files import store_folder
from tracefork_otel.session.interpreter import ISOLATING, is_python, isolating_option, program_of
from tracefork_otel.store.records import Note, ProcessStarted
from tracefork_otel.store.wal import wal_files
from tracefork_otel.store.wal_reading import read_wal

from ..store.absent import Absent, absent_of
from ..store.unseen import unseen
from .left import Left

_NAME_LENGTH = 60
_CLIENTS = ("httpx", "httpx2", "urllib3", "aiohttp")
"""Packages of clients that are captured."""


def reached(store: Path, launch_id: str) -> tuple[list[ProcessStarted], list[Absent], tuple[str, ...]]:
    """Return the processes of a launch that recorded, notes of those that could not, and what went round."""
    processes: list[ProcessStarted] = []
    round_us: dict[str, None] = {}
    others: list[Note] = []
    for path in wal_files(store):
        with contextlib.suppress(StoreError):
            contents = read_wal(path, keep=lambda span, side, body: b"")
            process = contents.process
            if process is not None and process.launch_id == launch_id and process.via != "backend":
                processes.append(process)
                for record in contents.records:
                    if isinstance(record, Note) and record.kind == "incomplete":
                        round_us[str(record.attributes.get("why", ""))] = None
                    elif isinstance(record, Note):
                        others.append(record)
    absent = [one for one in absent_of(store) if one.launch_id == launch_id]
    return processes, absent, (*round_us, *unseen(others))


_ROOM = 64 * 1024
"""Bytes without which a process can hardly begin to record."""


def why_nothing(
    argv: Sequence[str],
    processes: Sequence[ProcessStarted],
    absent: Sequence[Absent],
    round_us: Sequence[str] = (),
    left: Sequence[Left] = (),
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
                f"nothing captured: Python was reached ({count}), but made no request through httpx, "
                "httpx2, urllib3 or aiohttp; a client on urllib is not recorded"
            )
        where = processes[0].executable
        return (
            f"nothing captured: {where} has none of httpx, httpx2 and urllib3, through which model SDKs "
            f"talk; if the agent should have one: {where} -m pip install httpx2"
        )
    if absent:
        where = absent[0].executable
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
            f"nothing captured: -{letter} keeps Python from reading {ISOLATING[letter]}; run it without: "
            f"tracefork-otel run -- {without}"
        )
    if pythons := [one.what for one in left if one.is_python]:
        return (
            f"nothing captured: {'; '.join(pythons)}. Start it so that it is reached, or call "
            "tracefork_otel.TraceforkInstrumentor().instrument() at its top"
        )
    if is_python(argv[0]):
        return (
            f"nothing captured: {argv[0]} never ran our start-up hook; call "
            "tracefork_otel.TraceforkInstrumentor().instrument() at the top of the agent"
        )
    return (
        f"nothing captured: no Python process was reached from {argv[0]!r}. What is no Python is recorded "
        f"from outside: tracefork-otel run --proxy -- {' '.join(argv)}. If it starts Python with -I or a "
        "cleared environment, call tracefork_otel.TraceforkInstrumentor().instrument() in the agent"
    )


def unwritable(store: Path) -> str | None:
    """Return why a recording cannot be written into this folder, None if it can."""
    try:
        store_folder(store)
        with tempfile.TemporaryFile(dir=store, buffering=0) as file:
            if file.write(bytes(_ROOM)) == _ROOM:
                return None
        why = os.strerror(errno.ENOSPC)
    except OSError as error:
        why = error.strerror or str(error)
    return f"nothing captured: {store} cannot be written ({why}); name another with --store"


def has_client(processes: Sequence[ProcessStarted]) -> bool:
    """Return whether an interpreter among these can import a client that is captured."""
    probe = f"import importlib.util as u, sys; sys.exit(not any(map(u.find_spec, {_CLIENTS})))"
    env = {name: value for name, value in os.environ.items() if not name.startswith("TRACEFORK_")}
    for executable in dict.fromkeys(process.executable for process in processes):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            if subprocess.run([executable, "-c", probe], env=env, timeout=30, check=False).returncode == 0:
                return True
    return False


def short_name(argv: Sequence[str]) -> str:
    """Return the command as a run's name: without the interpreter and folders, at most 60 characters."""
    program = program_of(argv)
    last = next((index for index, word in enumerate(argv) if os.path.basename(word) == program), len(argv))
    text = " ".join([program, *(word.replace("\n", " ") for word in argv[last + 1 :])])
    return text if len(text) <= _NAME_LENGTH else text[: _NAME_LENGTH - 1] + "…"
