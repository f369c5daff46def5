"""The model server as a process of its own, on a port that is the same every time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# Below the range that Linux takes outgoing connections' ports from (32768 and up).
_FIRST_PORT, _LAST_PORT = 20_000, 32_700
_TRIES = 50
_END_S = 5.0
_LISTENING = "listening on "


class SpawnError(RuntimeError):
    """The model server's process did not start."""


def port_of(behaviour: str, file: str, seed: int | None = None) -> int:
    """Return the port that a file's model server listens on, the same on every machine."""
    digest = hashlib.sha256(f"{behaviour}\0{Path(file).name}\0{seed}".encode()).digest()
    return _FIRST_PORT + int.from_bytes(digest[:4], "big") % (_LAST_PORT - _FIRST_PORT)


def _start(behaviour: str, port: int, seed: int | None) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", "tracefork_backend.simulate", "--behaviour", behaviour]
    command += ["--port", str(port), "--tries", str(_TRIES), "--share-port", "--until-eof"]
    if seed is not None:
        command += ["--seed", str(seed)]
    environment = {**os.environ, "TRACEFORK_MODE": "off"}  # the recorder must not record the model
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    )


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdin.close()
    process.stdout.close()


@contextlib.contextmanager
def spawn(behaviour: str, *, file: str, seed: int | None = None) -> Iterator[str]:
    """Yield the base URL of a model server in a child process, which ends with the block, and with this one.

    `behaviour` is a name in `behaviours` or `pkg.mod:function`; `file` is the caller's `__file__`.
    """
    port = port_of(behaviour, file, seed)
    # A replay has to send the recorded URLs and needs nobody behind them: hence a port that follows from the
    # file, and no server here. A fork needs one for its tail; forks that run at once share the port.
    if os.environ.get("TRACEFORK_MODE") == "replay":
        yield f"http://127.0.0.1:{port}"
        return
    process = _start(behaviour, port, seed)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line.startswith(_LISTENING):
            raise SpawnError(
                f"the model server for {behaviour!r} did not start (its own message is above); "
                f"try: python -m tracefork_backend.simulate --behaviour {behaviour} --port {port}"
            )
        yield line.removeprefix(_LISTENING)
    finally:
        _end(process)
