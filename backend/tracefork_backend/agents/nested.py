"""A `run` inside of another one: what it starts is recorded there, as the outer command says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tracefork_otel.errors import UsageError

_INSIDE = "inside of another run: what this command exchanges is recorded there"


def said_inside(environ: Mapping[str, str], store: Path, flags: Mapping[str, object]) -> str:
    """Return what is to be said of it, ignored flags included; UsageError where secrets would be kept."""
    if flags["--redact"] is not None:
        raise UsageError(
            "inside of another run --redact cannot hold: give it to the outer tracefork-otel run"
        )
    outer = Path(environ.get("TRACEFORK_STORE", store)).absolute()
    as_outside = {
        "--store": store == outer,
        "--draws": environ.get("TRACEFORK_DRAWS") == "1",
    }
    ignored = [
        name for name, given in {**flags, "--store": True}.items() if given and not as_outside.get(name)
    ]
    return f"{_INSIDE}; ignored: {', '.join(ignored)}" if ignored else _INSIDE
