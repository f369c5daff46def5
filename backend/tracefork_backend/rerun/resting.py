"""What is said of an agent that was ended as it only waited for somebody: how its work is made again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tracefork_otel.tape.start import ASGI, WSGI

_APPLICATION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\(\))?")
_SERVERS = {"uvicorn": ASGI, "hypercorn": ASGI, "gunicorn": WSGI, "waitress-serve": WSGI, "granian": ASGI}
ONLY_LISTENS, ONLY_WAITS = "it only listens", "it only waits"
"""What an agent does that was ended at rest."""


def resting(command: Sequence[str], ended: str) -> str:
    """Return why the agent was ended, and what to name in its place."""
    return (
        f"the agent was ended: all that it asked for was answered, and {ended}; to make one request or one "
        f"task again, name it: --agent {_named_by(command, waits=ended == ONLY_WAITS)}; --go-on lets it wait"
    )


def _named_by(command: Sequence[str], *, waits: bool) -> str:
    """Return the entry of the application that a server's command names, or how one is written."""
    kind = next((_SERVERS[name] for word in command if (name := Path(word).name) in _SERVERS), None)
    script = next((Path(word).stem for word in command if word.endswith(".py")), None)
    if kind is None and waits and script is not None:
        return f"{script}:fn, where the function fn does one piece of work"
    if kind is None:
        return "pkg.mod:fn, asgi:pkg.mod:app or wsgi:pkg.mod:app"
    if any("uvicorn" in word.lower() or word == "asgi" for word in command):
        kind = ASGI
    return kind + next(filter(_APPLICATION.fullmatch, command), "pkg.mod:app")
