"""The package's logger, and warnings that are given once."""

from __future__ import annotations

import logging

LOG = logging.getLogger("tracefork_otel")

_warned: set[str] = set()


def warn_once(key: str, message: str, *values: object) -> None:
    """Log the warning the first time that its key comes by in this process."""
    if key not in _warned:
        _warned.add(key)
        LOG.warning(message, *values)
