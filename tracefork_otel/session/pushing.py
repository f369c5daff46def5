"""Sending what this process recorded to a bucket, by a process of its own: its client outlives no fork."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ..log import LOG

SECONDS = 10.0
"""The exit waits so long for the bucket; what is not there by then goes on by itself."""


def push_at_exit(store: Path, sink: object) -> None:
    """Have a helper store what dead processes left in the spool, this one's WAL with it."""
    from ..store.wal import Wal

    if isinstance(sink, Wal):
        sink.set_aside()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRACEFORK_")}
    try:
        helper = subprocess.Popen(
            [sys.executable, "-m", "tracefork_otel.push_main", str(store)],
            env={**environment, "TRACEFORK_MODE": "off"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        helper.wait(SECONDS)
    except subprocess.TimeoutExpired:
        LOG.warning("tracefork: the bucket did not answer in %s s; %s is pushed later", SECONDS, store)
    except Exception as error:
        LOG.warning("tracefork could not push %s: %s", store, error)
