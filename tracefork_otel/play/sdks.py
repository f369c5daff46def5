"""SDKs of models, made ready to read a tape's answers before processes are forked that are given them.

Their models, of pydantic, are completed by the first answer that is read: half of what a trial of four calls
takes, and the same in each trial.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from ..exchange import Exchange
from ..wire.codings import decode_body

_ANSWERS = 20
"""So many differ enough: each kind of block, and of reason to stop, is among them or rare."""


class _Reader(NamedTuple):
    """A class of an SDK that reads whole answers, and what tells these from others."""

    sdk: str
    tells: tuple[str, str]
    model: tuple[str, str]
    loads: str
    """What the SDK imports when it is first asked for such a call."""


_READERS = (
    _Reader("anthropic", ("type", "message"), ("types", "Message"), "resources.messages"),
    _Reader("openai", ("object", "chat.completion"), ("types.chat", "ChatCompletion"), "resources.chat"),
    _Reader("openai", ("object", "response"), ("types.responses", "Response"), "resources.responses"),
)


def prepare(exchanges: Iterable[Exchange]) -> None:
    """Have the SDKs that are imported read answers of the tape once, without a client and without a call."""
    readers = [reader for reader in _READERS if reader.sdk in sys.modules]
    if not readers:
        return
    read = 0
    for exchange in exchanges:
        answer = _answer(exchange)
        for reader in readers:
            key, value = reader.tells
            if answer.get(key) == value:
                # Whatever a version does not have, or does not read, its trials find out.
                with suppress(Exception):
                    importlib.import_module(f"{reader.sdk}.{reader.loads}")
                    module, name = reader.model
                    models = importlib.import_module(f"{reader.sdk}.{module}")
                    getattr(models, name).construct(**answer)
                read += 1
        if read >= _ANSWERS:
            return


def _answer(exchange: Exchange) -> dict[str, Any]:
    """Return the answer where it is one JSON object; nothing of a stream is."""
    response = exchange.response
    if response is None:
        return {}
    with suppress(ValueError, RecursionError):
        read = json.loads(decode_body(response.body, response.header("content-encoding")) or b"")
        if isinstance(read, dict):
            return read
    return {}
