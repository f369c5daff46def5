"""What a drawn value is called, and how it looks in a prompt."""

from __future__ import annotations

import base64
import datetime as _datetime
import time
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

Family: TypeAlias = Literal["clock", "id", "random"]

_RANDOM = frozenset(("random", "getrandbits", "seed", "numpy.seed"))
_NAMES = {
    "getrandbits": "random.*",
    "random": "random.random",
    "seed": "random.Random()",
    "numpy.seed": "numpy.random",
    "urandom": "os.urandom",
    "today": "date.today",
    "datetime.now(tz)": "datetime.now",
}
_LOOKS = (
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%H:%M:%S",
    "%H:%M",
    "%Y-%m-%d",
    "%A",
    "%B",
    "%Y%m%d",
    "%f",
)
# Shorter texts stand in too many prompts to prove anything.
_TELLING = 4


def family(source: str) -> Family:
    """Return what kind of value the source gives."""
    if source in _RANDOM:
        return "random"
    return "id" if source == "urandom" or source.startswith("uuid") else "clock"


def shown(source: str, site: str) -> str:
    """Return what the agent called, as it is written in its code as far as that is known."""
    via = site.rpartition("<")[2]
    if source == "urandom" and via in ("uuid", "secrets"):
        return "uuid4" if via == "uuid" else "secrets"
    if source in _NAMES or source.startswith(("datetime.", "uuid", "numpy.")):
        return _NAMES.get(source, source)
    return source if "." in source or " " in source else f"time.{source}"


def place(site: str) -> str:
    """Return the function of a site, without the module through which it drew."""
    head, _, via = site.rpartition("<")
    return head if head and not via.endswith(">") else site


def looks(value: Any) -> Iterator[str]:
    """Yield how the value, or a telling part of it, may stand in a prompt; nothing too short to tell."""
    yield from (text for text in _looks(value) if len(text) >= _TELLING)


def _looks(value: Any) -> Iterator[str]:
    if isinstance(value, tuple) and not isinstance(value, time.struct_time):
        value = value[0] if value else None  # of uuid1, the bytes
    if isinstance(value, _datetime.datetime):
        yield from (value.strftime(look) for look in _LOOKS)
    elif isinstance(value, time.struct_time):
        yield from (time.strftime(look, value) for look in _LOOKS)
    elif isinstance(value, bytes) and value:
        yield value.hex()[:8]
        yield base64.urlsafe_b64encode(value).decode()[:8]
    elif isinstance(value, str):
        yield value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield repr(value)
        yield f"{value:.2f}"
        yield str(int(value))[:10]  # of nanoseconds, the seconds
