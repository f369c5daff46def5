"""What is kept of replaced values: keyed digests, by which a replay's are compared with its recording's.

Without the key nothing follows from a digest, not even by guessing. Values that prove who asks (those of
secret variables of the environment, and JWTs) have none: a replay may ask with others, or with a dummy.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import blake2b

from .names import REDACTED, environment

DUMMY = "tracefork-replay"
"""Value of a withheld variable on a replay, so that an SDK that insists on a key can be constructed."""
_KEY = "key="
_MANY = 256
"""Values under one name that have a digest each; more have one together: their list grows with the body."""
_TOGETHER = "~"
_EACH = 4
_WHOLE = 8
_SCHEME = re.compile(r"\A(?:Bearer|Basic|token) +", re.IGNORECASE)
_JWT = re.compile(r"eyJ[\w-]+\.eyJ[\w-]+\.[\w-]*")
_heard: ContextVar[list[tuple[str, str]] | None] = ContextVar("tracefork_replaced", default=None)


@contextmanager
def hearing(place: str, found: list[tuple[str, str]]) -> Iterator[None]:
    """Add what rules replace within the block, by place and name."""
    heard: list[tuple[str, str]] = []
    token = _heard.set(heard)
    try:
        yield
    finally:
        _heard.reset(token)
        found += [(f"{place} {name}", value) for name, value in heard]


def replaced(name: str, value: str) -> None:
    """Tell whoever is hearing that the value was replaced."""
    heard = _heard.get()
    if heard is not None:
        heard.append((name, value))


def hearer() -> list[tuple[str, str]]:
    """Return the list to which `replaced` adds; what it adds nowhere, if nobody is hearing."""
    heard = _heard.get()
    return [] if heard is None else heard


def digests(found: Iterable[tuple[str, str]], key: bytes | None) -> tuple[str, ...]:
    """Return the name of the key and, by name, the digests of its values in their order.

    A value that stands in two places has two digests. Without a key the names stand alone; empty where
    nothing was replaced.
    """
    told: dict[str, list[str]] = {}
    credentials: dict[str, bool] = {}
    for name, value in found:
        if value not in credentials:
            credentials[value] = _is_credential(value)
        if not credentials[value]:
            told.setdefault(name, []).append(value)
    if not told:
        return ()
    if key is None:
        return (_KEY, *(f"{name}=" for name in told))
    return (
        f"{_KEY}{_digest(key, (), person=b'order', size=_WHOLE)}",
        *(f"{name}={_of_all(key, values)}" for name, values in told.items()),
    )


def _of_all(key: bytes, values: list[str]) -> str:
    if len(values) > _MANY:
        return _TOGETHER + _digest(key, values, size=_WHOLE)
    before = Counter[str]()
    each: list[str] = []
    for value in values:
        each.append(_digest(key, (str(before[value]), value), size=_EACH))
        before[value] += 1
    return "".join(each)


def _digest(key: bytes, values: Iterable[str], *, person: bytes = b"values", size: int) -> str:
    digest = blake2b(key=key, digest_size=size, person=person)
    for value in values:
        data = value.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _is_credential(value: str) -> bool:
    """Return whether the value stands in for another, or comes from a secret variable of the environment.

    Or is a JWT, which is signed anew each time. What says how it proves who asks may stand before it.
    """
    value = _SCHEME.sub("", value)
    if not value or value in (DUMMY, REDACTED) or _JWT.fullmatch(value):
        return True
    holding = {name: one for name, one in os.environ.items() if value == one}
    return bool(holding) and bool(environment(holding)[1])


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the replaced values of two requests compare, by name."""

    other: tuple[str, ...] = ()
    """Those that are another value than the recorded one."""
    unknown: tuple[str, ...] = ()
    """Those that could not be compared."""


SAME = Verdict()


def compared(
    recorded: tuple[str, ...],
    got: tuple[str, ...],
    ignore: Collection[str] = (),
    *,
    any_order: bool = False,
) -> Verdict:
    """Return how what was replaced in a request compares with what was in the recorded one.

    The requests are equal as they are recorded. A request may thus lack values of the recorded one: in their
    place it has what stands for them, as replies and results are served with. Names to `ignore` are left out.
    Where bodies match in `any_order` of their keys, values of one rule that stand in another order than
    recorded may stand at the same keys or not: that is unknown.
    """
    if ignore:
        recorded, got = (tuple(one for one in told if _name(one) not in ignore) for told in (recorded, got))
        recorded, got = (told if told[1:] else () for told in (recorded, got))
    if not got or (recorded == got and got[0] != _KEY):
        return SAME
    if not recorded or recorded[0] != got[0] or got[0] == _KEY:
        return Verdict(unknown=tuple(sorted({_name(entry) for entry in got[1:]})))
    then, now = (dict(map(_named, told[1:])) for told in (recorded, got))
    unknown, other = now.keys() - then.keys(), set[str]()
    for name in now.keys() & then.keys():
        had, has = _each(then[name]), _each(now[name])
        if not (had and has):  # too many for a digest each
            if then[name] != now[name]:
                (unknown if has else other).add(name)
        elif _within(has, had):
            continue
        elif len(has) > len(had) or (not Counter(has) - Counter(had) and (any_order or len(has) < len(had))):
            unknown.add(name)
        else:
            other.add(name)
    return Verdict(other=tuple(sorted(other)), unknown=tuple(sorted(unknown)))


def _each(told: str) -> list[str]:
    return (
        [] if told[:1] == _TOGETHER else [told[at : at + 2 * _EACH] for at in range(0, len(told), 2 * _EACH)]
    )


def _within(some: list[str], all_: list[str]) -> bool:
    """Return whether the first are among the second, in their order."""
    rest = iter(all_)
    return all(one in rest for one in some)


def _named(entry: str) -> tuple[str, str]:
    name, _, digest = entry.rpartition("=")
    return name, digest


def _name(entry: str) -> str:
    return _named(entry)[0]
