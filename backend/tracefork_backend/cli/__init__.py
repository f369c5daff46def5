"""The command line: one file per verb, each thin over the Python API."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tracefork_otel.errors import TraceforkError

USAGE = 2
"""Exit status of bad usage or input; 1 is a finding, 3 a failure of the agent, the model or the machine."""

_INSTALL = 'pip install "tracefork-otel[backend]"'
_BACKEND = (
    "anthropic",
    "duckdb",
    "genai_prices",
    "jinja2",
    "pyarrow",
    "rich",
    "starlette",
    "typer",
    "uvicorn",
)
"""What that brings: an application may have some of it, and the core beside it."""


def main() -> None:
    """Run the command line and exit with its status."""
    with _ends_at_once():
        try:
            import typer  # noqa: F401
        except ImportError:
            sys.exit(f"error: the command line needs the backend extra: {_INSTALL}")
        run = _loaded()
    sys.exit(run(sys.argv[1:]))


@contextmanager
def _ends_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process without a word while all that it does is load itself."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        except ValueError:  # in a thread of somebody's program
            ours = False
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _loaded() -> Callable[[list[str]], int]:
    """Return what runs the command line, with what it needs to begin loaded."""
    from typer import exceptions  # noqa: F401

    from . import app, interrupt, output, terminal  # noqa: F401

    return _run


def _run(arguments: list[str]) -> int:
    from typer.exceptions import Abort, Exit, TyperException

    from .app import app
    from .interrupt import INTERRUPTED, Interrupted, is_interrupt, status_of
    from .output import FAILED
    from .terminal import show_whatever_comes

    show_whatever_comes()
    try:
        status = app(arguments, standalone_mode=False, prog_name="tracefork-otel")
        sys.stdout.flush()
    except TraceforkError as error:
        return _fail(str(error), error.exit_status)
    except TyperException as error:
        # Without any argument the help was shown, and there is nothing to add.
        return _fail(error.format_message(), USAGE) if error.format_message() else USAGE
    except Exit as leave:
        return leave.exit_code
    except (Abort, Interrupted, KeyboardInterrupt) as error:
        return status_of(error)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _BACKEND:
            raise
        return _fail(f"{error}; this command needs the backend extra: {_INSTALL}", FAILED)
    except RuntimeError as error:
        if not is_interrupt(error):
            raise
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has left: not an error, and stdout must not be flushed again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status if isinstance(status, int) else 0


def _fail(message: str, status: int) -> int:
    from ..spelling import visible

    sys.stderr.write(visible(f"error: {message}\n"))
    return status
