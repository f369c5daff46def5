"""The functions that clocks, ids and randomness end in, each replaced by one that asks the deck first."""

from __future__ import annotations

import datetime as _datetime
import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import MethodType, ModuleType
from typing import Any, NamedTuple

from ..session.imports import when_imported
from ..undo import Undo
from . import ctypes_dict
from .deck import Deck, Suspect

FORWARD = (
    "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns",
    "process_time", "process_time_ns", "thread_time", "thread_time_ns",
)  # fmt: skip
"""Clocks that only run forward."""
_urandom = os.urandom


# Wrong arguments are for the true function to refuse, in its own words.
def _by_name(name: str, *given: Any, **named: Any) -> str:
    return name


def _any(value: Any, *given: Any, **named: Any) -> bool:
    return True


class Reader(NamedTuple):
    """Functions of a module that draw."""

    module: str
    names: tuple[str, ...]
    """Those that this interpreter lacks are left out."""
    source: Callable[..., str | None] | None = None
    """What a call is recorded as, given the function's name and the arguments; None if it draws nothing.

    A function without a `source` takes no arguments and is recorded by its name.
    """
    fits: Callable[..., bool] = _any
    """Whether a recorded value can answer a call with these arguments."""
    is_id: bool = False
    """Whether the value is a UUID, kept as text."""
    libraries: bool = False
    """Whether what libraries draw for themselves can explain a drift."""


READERS = (
    Reader("time", ("time", "time_ns", *FORWARD)),
    Reader(
        "time",
        ("clock_gettime", "clock_gettime_ns"),
        lambda name, *clock: f"{name}({', '.join(map(str, clock))})",
    ),
    # These read the clock only if they are not given a time.
    Reader(
        "time",
        ("localtime", "gmtime", "ctime", "asctime"),
        lambda name, *given: name if given in ((), (None,)) else None,
    ),
    Reader("time", ("strftime",), lambda name, *given: name if len(given) < 2 else None),
    Reader(
        "os",
        ("urandom",),
        lambda name, *given: "urandom",
        lambda value, size: len(value) == size,
        libraries=True,
    ),
    Reader(
        "os",
        ("getrandom",),
        lambda name, *given, **named: "urandom",
        lambda value, size, flags=0: len(value) <= size,
    ),
    Reader("uuid", ("_generate_time_safe",), lambda name: "uuid1"),
    # Whole ids, which hang on a state that a library's calls change too, or are not Python inside.
    *(
        Reader(module, names, _by_name, is_id=True, libraries=True)
        for module, names in (
            ("uuid", ("uuid6", "uuid7")),
            ("uuid6", ("uuid6", "uuid7", "uuid8")),
            ("uuid_utils", ("uuid1", "uuid4", "uuid6", "uuid7")),
            ("uuid_utils.compat", ("uuid1", "uuid4", "uuid6", "uuid7")),
        )
    ),
)
"""Every function of a module that is replaced as it stands."""


class _Home:
    """What a replaced function is bound to: a bound method is no descriptor, as a C function is none."""

    __slots__ = ("module",)

    def __init__(self, module: str) -> None:
        self.module = module

    def __reduce__(self) -> tuple[Any, ...]:
        return import_module, (self.module,)


class Sources:
    """Everything that is replaced, and how to put it back."""

    def __init__(self, deck: Deck) -> None:
        self.deck = deck
        self.made: list[tuple[Any, Any]] = []
        """(what stood there, what stands there now) of module functions: for names bound before."""
        self.missing: list[Suspect] = []
        """What this interpreter, or the order in which things were loaded, keeps from being recorded."""
        self._undo = Undo()
        self._installing = False
        self._installed = False

    def replace(self, owner: Any, name: str, ours: Any) -> None:
        """Set the owner's attribute to ours until `restore`."""
        self._undo.replace(owner, name, ours)

    def restore(self) -> None:
        """Put everything back that is still ours."""
        self._installed = False
        self._undo.take_back()

    def install(self) -> None:
        """Replace what is loaded now, and the rest right after its import."""
        self._installing = self._installed = True
        for reader in READERS:
            self._when(reader.module, partial(self._functions, reader))
        self._dates()
        lanes = self.deck.lanes
        lanes.watch_threads(self.replace)
        self._when("random", self._random)
        self._when("numpy.random", self._numpy)
        self._when("asyncio", lambda module: lanes.watch_tasks(module, self.replace))
        self._when("uvloop", lambda module: lanes.watch_loop(module.Loop, self.replace))
        self._when("concurrent.futures.thread", lambda module: lanes.watch_jobs(module, self.replace))
        self._when(
            "concurrent.futures.process",
            lambda module: lanes.watch_process_jobs(module, self.replace, self._miss),
        )
        self._installing = False

    def rebind(self) -> None:
        """Give names that the agent's modules bound before ours too; note what cannot be reached."""
        from .rebinding import Rebinding

        rebinding = Rebinding(self.made, self.replace)
        rebinding.run(self.deck.scope)
        for place in rebinding.left:
            self._miss("prebound", "a clock or randomness", place)

    def _miss(self, kind: str, source: str, site: str) -> None:
        self.deck.note(kind, source, site)
        self.missing.append(Suspect(kind, source, site, "", None, None))

    def _when(self, name: str, hook: Callable[[ModuleType], None]) -> None:
        def call(module: ModuleType) -> None:
            if self._installed:
                hook(module)

        self._undo.add(when_imported(name, call))

    def _functions(self, reader: Reader, module: ModuleType) -> None:
        for name in reader.names:
            real = getattr(module, name, None)
            if real is None:
                continue
            if name in FORWARD:
                self.deck.real[name] = real
            self._function(module, name, self._read(reader, module, name, real))

    def _read(self, reader: Reader, module: Any, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        deck, stream, draw = self.deck, self.deck.stream, self.deck.draw
        source_of, fits = reader.source or _by_name, reader.fits

        def clock(home: _Home) -> Any:
            place = stream(name)
            return real() if place is None else draw(place, real)

        def read(home: _Home, *given: Any, **named: Any) -> Any:
            source = source_of(name, *given, **named)
            place = None if source is None else stream(source)
            if place is not None:
                # What it reads itself is read below its own module, so it is nobody's draw.
                # An id is drawn as its text: so it is recorded, and looked for in what is sent.
                make = (lambda: str(real(*given, **named))) if reader.is_id else lambda: real(*given, **named)
                value = draw(place, make, lambda value: fits(value, *given, **named))
                return module.UUID(value) if reader.is_id and isinstance(value, str) else value
            value = real(*given, **named)
            if reader.libraries and deck.serves:
                deck.library(name, str(value) if reader.is_id else value)
            return value

        return clock if reader.source is None else read

    def _function(self, module: ModuleType, name: str, function: Callable[..., Any]) -> None:
        real = getattr(module, name)
        function.__name__ = function.__qualname__ = name
        function.__module__, function.__doc__ = module.__name__, real.__doc__
        ours = MethodType(function, _Home(module.__name__))
        self.made.append((real, ours))
        self.replace(module, name, ours)

    def _random(self, module: ModuleType) -> None:
        """Have the hidden instance's two primitives, and seeding from the system, draw; its state stays."""
        stream, draw = self.deck.stream, self.deck.draw
        base = module.Random
        base_random, base_bits, base_seed = base.random, base.getrandbits, base.__dict__["seed"]

        class Shared(base):
            """The instance behind the module's functions."""

            def random(self) -> float:
                """Return the next value of [0, 1)."""
                place = stream("random")
                return base_random(self) if place is None else draw(place, lambda: base_random(self))

            def getrandbits(self, k: int, /) -> int:
                """Return the next k bits."""
                place = stream("getrandbits")
                if place is None:
                    return base_bits(self, k)
                return draw(place, lambda: base_bits(self, k), lambda value: value.bit_length() <= k)

            def __reduce__(self) -> Any:
                return base, (), self.getstate()

        def seed(self: Any, a: Any = None, version: int = 2) -> None:
            if a is None and type(self) is not Shared:
                place = stream("seed")
                if place is not None:
                    a = draw(place, lambda: int.from_bytes(_urandom(32), "big"))
            base_seed(self, a, version)

        hidden = module._inst
        before = (module.random, module.getrandbits)
        hidden.__class__ = Shared
        self._undo.add(lambda: setattr(hidden, "__class__", base))
        self.replace(module, "random", hidden.random)
        self.replace(module, "getrandbits", hidden.getrandbits)
        self.made += zip(before, (hidden.random, hidden.getrandbits), strict=True)
        self.replace(base, "seed", seed)
        # It was bound to the true function if `random` came first.
        self.replace(module, "_urandom", os.urandom)

    def _numpy(self, module: ModuleType) -> None:
        """Seed the legacy global state, which numpy seeded while it was imported, by a draw."""
        stream = self.deck.stream_of("", "numpy.seed", "numpy.random:import")
        if self.deck.serves and not stream.recorded:
            return
        if self._installing and not self.deck.serves:  # the agent may have seeded it already
            self._miss("prebound", "numpy's global state", "numpy.random")
            return
        data: bytes = self.deck.draw((stream, 0, None), lambda: _urandom(16))
        seed = module.seed
        seed([int.from_bytes(data[at : at + 4], "big") for at in (0, 4, 8, 12)])
        ours = [True]

        def seeded(home: _Home, *given: Any, **named: Any) -> None:
            ours[0] = False
            seed(*given, **named)

        def go_live() -> None:
            if ours[0] and self._installed:  # a seed of the agent's own is its to keep
                seed()

        self._function(module, "seed", seeded)
        self.deck.when_live.append(go_live)

    def _dates(self) -> None:
        stream, draw = self.deck.stream, self.deck.draw
        stamp, date, utc = _datetime.datetime, _datetime.date, _datetime.UTC
        true_now, true_utcnow = stamp.__dict__["now"], stamp.__dict__["utcnow"]
        true_today = date.__dict__["today"]
        real_now = true_now.__get__(None, stamp)

        def of(cls: Any, value: Any) -> Any:
            if type(value) is cls:
                return value
            if not issubclass(cls, stamp):
                return cls(value.year, value.month, value.day)
            at = (value.year, value.month, value.day, value.hour, value.minute, value.second)
            return cls(*at, value.microsecond, value.tzinfo, fold=value.fold)

        def now(cls: Any, tz: Any = None) -> Any:
            place = stream("datetime.now" if tz is None else "datetime.now(tz)")
            if place is None:
                return true_now.__get__(None, cls)(tz)
            if tz is None:  # kept as fields, so that they do not depend on the zone of the replay's machine
                return of(cls, draw(place, real_now))
            return of(cls, draw(place, lambda: real_now(utc)).astimezone(tz))

        def utcnow(cls: Any) -> Any:
            place = stream("datetime.utcnow")
            if place is None:
                return true_utcnow.__get__(None, cls)()
            return of(cls, draw(place, lambda: real_now(utc).replace(tzinfo=None)))

        def today(cls: Any) -> Any:
            place = stream("today")
            if place is not None:
                return of(cls, draw(place, real_now))
            # The true `today` of a datetime calls `time.time`, which is replaced.
            return (true_now if issubclass(cls, stamp) else true_today).__get__(None, cls)()

        for owner, name, ours in ((stamp, "now", now), (stamp, "utcnow", utcnow), (date, "today", today)):
            try:
                before = ctypes_dict.replace(owner, name, classmethod(ours))
            except Exception as why:
                self._miss("uncovered", f"{owner.__name__}.{name}", str(why) or type(why).__name__)
                continue
            self._undo.add(lambda at=(owner, name, before): ctypes_dict.replace(*at) and None)
