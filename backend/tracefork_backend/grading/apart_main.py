"""The process in which a named function grades, one run after the other, until nobody asks any more."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import signal
import socket

from .apart import Told
from .bounded import Endless, bounded
from .function import Function
from .graded import Graded


def main(descriptor: int, name: str) -> None:
    """Answer what is asked over the socket of that number; end with it, or when the terminal says so."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with socket.socket(fileno=descriptor) as asking, asking.makefile("rwb") as pipe:
        oracle = Function.asked({"oracle": name})
        with contextlib.suppress(ConnectionError):
            for line in pipe:
                shown, limit_s = json.loads(line)
                told = _told(oracle, Graded(**shown), limit_s)
                pipe.write(json.dumps(dataclasses.asdict(told)).encode() + b"\n")
                pipe.flush()


def _told(oracle: Function, graded: Graded, limit_s: float) -> Told:
    try:
        answer: object = bounded(lambda: oracle(graded), limit_s)
    except Endless:
        return Told(endless=True)
    except Exception as error:
        return Told(failed=f"{type(error).__name__}: {error}")
    if inspect.iscoroutine(answer):
        answer.close()
    return Told(answer if answer is None or isinstance(answer, (bool, int, float, str)) else repr(answer))
