"""Drawn values as JSON, and back."""

from __future__ import annotations

import datetime as _datetime
import time
from typing import Any


def encode(value: Any) -> Any:
    """Return the value as JSON-able data; numbers stand for themselves."""
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, time.struct_time):
        return {"struct_time": list(value), "zone": [value.tm_zone, value.tm_gmtoff]}
    if isinstance(value, _datetime.datetime):
        return {"datetime": value.isoformat(), "fold": value.fold}
    if isinstance(value, tuple):
        return {"tuple": [encode(part) for part in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    # What uuid1's C function says of its safety, an enum in some versions.
    return encode(getattr(value, "value", str(value)))


def decode(value: Any) -> Any:
    """Return the value that `encode` made this of."""
    if not isinstance(value, dict):
        return value
    if "bytes" in value:
        return bytes.fromhex(value["bytes"])
    if "struct_time" in value:
        return time.struct_time(value["struct_time"] + value["zone"])
    if "datetime" in value:
        return _datetime.datetime.fromisoformat(value["datetime"]).replace(fold=value["fold"])
    return tuple(decode(part) for part in value["tuple"])
