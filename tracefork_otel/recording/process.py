"""The record by which a process introduces itself at the head of its WAL."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from time import time_ns

from ..store.records import ProcessStarted
from ..version import __version__


def new_process_id() -> str:
    """Return the name of this process, as its WAL bears it."""
    return f"{os.getpid()}-{os.urandom(4).hex()}"


def cwd() -> str:
    """Return the working directory, empty where it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def process_started(
    *,
    via: str,
    mode: str,
    process_id: str | None = None,
    launch_id: str | None = None,
    argv: tuple[str, ...] = (),
    service: str | None = None,
    attributes: Mapping[str, object] | None = None,
) -> ProcessStarted:
    """Return the first record of this process; `argv` is what may be kept of its command line.

    With `service` it is a process of ours, known by that name.
    """
    ours = {} if service is None else {"service": service, "tracefork_otel": __version__}
    return ProcessStarted(
        process_id=process_id or new_process_id(),
        pid=os.getpid(),
        ppid=os.getppid(),
        started_ns=time_ns(),
        executable=sys.executable,
        argv=argv,
        cwd=cwd(),
        mode=mode,
        via=via,
        launch_id=launch_id,
        attributes={**ours, **(attributes or {})},
    )
