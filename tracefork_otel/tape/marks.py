"""The marks by which a start is known as one that this machine's own recorder wrote.

Who has a tape or a store can write any command into it. So each start that is recorded bears an HMAC over
what a replay would run and the run's id, by a key that is in the user's own folder (`key.py`); and a tape one
over what its agent is answered too.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from hashlib import sha256
from operator import attrgetter
from typing import Any

from .digest import digest_of
from .file import Contents, tool_record
from .key import own_key
from .reads import Draw
from .start import CALL, CALL_MARK, PROCESS, PROCESS_MARK, STARTING

_TAPE = "tape"
_DRAW = attrgetter(*(field.name for field in fields(Draw)))

_GROUPS = ((PROCESS_MARK, PROCESS), (CALL_MARK, CALL))
"""A process, and the call of a function in it, are told by spans of their own, so each has its mark."""


def marked(
    trace_id: str, attributes: Mapping[str, object], *, process: bool = True, call: bool = True
) -> dict[str, Any]:
    """Return a root span's attributes, with a mark on what they say of the process and of the call.

    They are as they were where this user has no key: the run can be replayed, but not without being asked.
    """
    kept = dict(attributes)
    for (name, group), wanted in zip(_GROUPS, (process, call), strict=True):
        if wanted and _says(group, attributes):
            mark = mark_of(name, trace_id, _of(group, attributes), make=True)
            if mark is not None:
                kept[name] = mark
    return kept


def beginning(heads: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[dict[str, Any], bool]:
    """Return what root spans, each with its trace id, say of a run; and whether what it runs is marked.

    The first that says something counts. What runs is taken from marked ones alone, if any is marked.
    """
    told = list(heads)
    vouched = {
        mark: [_of(group, one) for id, one in told if _is_marked(mark, group, id, one)]
        for mark, group in _GROUPS
    }
    merged: dict[str, Any] = {}
    for _, attributes in told:
        for name, value in attributes.items():
            if value is not None and name not in STARTING:
                merged.setdefault(name, value)
    believed = any(vouched.values())
    for mark, group in _GROUPS:
        found = vouched[mark]
        if not believed:
            found = [_of(group, one) for _, one in told if _says(group, one)]
        merged |= found[0] if found else {}
    return merged, believed


def mark_of_tape(tape: Contents) -> str | None:
    """Return the mark of a tape; None where this user has no key."""
    return mark_of(_TAPE, tape.run_id, _content(tape), make=True)


def is_from_here(tape: Contents) -> bool:
    """Return whether the tape bears the mark of what it starts and what it answers, by this user's key."""
    return tape.mark is not None and is_mark(tape.mark, _TAPE, tape.run_id, _content(tape))


def _content(tape: Contents) -> list[object]:
    """Return what a replay runs, and what it is answered: what an agent does follows from both."""
    read = json.dumps([list(map(_DRAW, tape.draws)), list(map(tool_record, tape.tools))], sort_keys=True)
    answered = digest_of(tape.exchanges, tape.format)
    ended = [tape.cut_short, tape.left_ns]
    return [_of(STARTING, tape.start.attributes()), answered, sha256(read.encode()).hexdigest(), ended]


def mark_of(kind: str, of: str, value: object, *, make: bool = False) -> str | None:
    """Return the mark of a JSON-able value of that kind, which belongs to that run or experiment."""
    key = own_key(make=make)
    if key is None:
        return None
    return hmac.digest(key, json.dumps([kind, of, value], sort_keys=True).encode(), "sha256").hex()


def is_mark(mark: object, kind: str, of: str, value: object) -> bool:
    """Return whether this is the mark of the value, made by this user's key."""
    made = mark_of(kind, of, value)
    return (
        made is not None
        and isinstance(mark, str)
        and hmac.compare_digest(made.encode(), mark.encode("utf-8", "replace"))
    )


def _of(names: Iterable[str], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the attributes that say something, as a store or a tape gives them back."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name in names
        if (value := attributes.get(name)) not in (None, [], ())
    }


def _says(group: Iterable[str], attributes: Mapping[str, Any]) -> bool:
    """Return whether the attributes tell of that group: arguments alone tell of no call."""
    names = ("tracefork.entrypoint",) if group is CALL else group
    return any(attributes.get(name) is not None for name in names)


def _is_marked(mark: str, group: Iterable[str], trace_id: str, attributes: Mapping[str, Any]) -> bool:
    return mark in attributes and is_mark(attributes[mark], mark, trace_id, _of(group, attributes))
