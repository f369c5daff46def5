"""The primitives that clocks, ids and randomness end in, each replaced by one that asks the deck first."""

from __future__ import annotations

import datetime as _datetime
import os
import time
from collections.abc import Callable
from importlib import import_module
from types import MethodType, ModuleType
from typing import Any

from ..session.imports import when_imported
from ..undo import Undo
from . import ctypes_dict
from .deck import Deck, Suspect

FORWARD = (
    "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns",
    "process_time", "process_time_ns", "thread_time", "thread_time_ns",
)  # fmt: skip
CLOCKS = ("time", "time_ns", *FORWARD)
NUMBERED = ("clock_gettime", "clock_gettime_ns")
FORMATTED = {"localtime": 0, "gmtime": 0, "ctime": 0, "asctime": 0, "strftime": 1}
"""Functions that read the clock only if the argument at this place is not given."""
IDS = (
    ("uuid", ("uuid6", "uuid7")),
    ("uuid6", ("uuid6", "uuid7", "uuid8")),
    ("uuid_utils", ("uuid1", "uuid4", "uuid6", "uuid7")),
    ("uuid_utils.compat", ("uuid1", "uuid4", "uuid6", "uuid7")),
)
"""Functions whose value hangs on a state that a library's calls change too, or that are not Python inside."""
_urandom = os.urandom


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

    def replace(self, owner: Any, name: str, ours: Any) -> None:
        """The owner has ours under that name until `restore`."""
        self._undo.replace(owner, name, ours)

    def restore(self) -> None:
        """All is as it was, where it is still ours to put back."""
        self._undo.take_back()

    def install(self) -> None:
        """What is loaded is replaced, what is not yet will be right after its import."""
        self._installing = True
        self._clocks()
        self._entropy()
        self._dates()
        lanes = self.deck.lanes
        lanes.watch_threads(self.replace)
        for name, hook in (
            ("uuid", self._uuid),
            ("random", self._random),
            ("numpy.random", self._numpy),
            ("asyncio", lambda module: lanes.watch_tasks(module, self.replace)),
            ("uvloop", lambda module: lanes.watch_loop(module.Loop, self.replace)),
            ("concurrent.futures.thread", lambda module: lanes.watch_jobs(module, self.replace)),
            (
                "concurrent.futures.process",
                lambda module: lanes.watch_process_jobs(module, self.replace, self._miss),
            ),
        ):
            self._undo.add(when_imported(name, self._hooked(hook)))
        for name, functions in IDS:
            hook = self._hooked(lambda module, names=functions: self._ids(module, names))
            self._undo.add(when_imported(name, hook))
        self._installing = False

    def rebind(self) -> None:
        """Names that the agent's modules bound before are ours too; what cannot be reached is noted."""
        from .rebinding import Rebinding

        rebinding = Rebinding(self.made, self.replace)
        rebinding.run(self.deck.scope)
        for place in rebinding.left:
            self._miss("prebound", "a clock or randomness", place)

    def _miss(self, kind: str, source: str, site: str) -> None:
        self.deck.note(kind, source, site)
        self.missing.append(Suspect(kind, source, site, "", None, None))

    def _hooked(self, hook: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
        def call(module: ModuleType) -> None:
            if not self.restored:
                hook(module)

        return call

    @property
    def restored(self) -> bool:
        """Whether nothing is replaced any more."""
        return not len(self._undo)

    def _function(self, module: ModuleType, name: str, function: Callable[..., Any]) -> None:
        real = getattr(module, name)
        function.__name__ = function.__qualname__ = name
        function.__module__, function.__doc__ = module.__name__, real.__doc__
        ours = MethodType(function, _Home(module.__name__))
        self.made.append((real, ours))
        self.replace(module, name, ours)

    def _clocks(self) -> None:
        stream, draw = self.deck.stream, self.deck.draw

        def clock(name: str, real: Callable[[], Any]) -> Callable[..., Any]:
            def read(home: _Home) -> Any:
                place = stream(name)
                return real() if place is None else draw(place, real)

            return read

        def formatted(name: str, argument: int, real: Callable[..., Any]) -> Callable[..., Any]:
            def read(home: _Home, *given: Any) -> Any:
                told = len(given) > argument and (given[argument] is not None or argument == 1)
                place = None if told else stream(name)
                return real(*given) if place is None else draw(place, lambda: real(*given))

            return read

        def numbered(name: str, real: Callable[[int], Any]) -> Callable[..., Any]:
            def read(home: _Home, clock: int, /) -> Any:
                place = stream(f"{name}({clock})")
                return real(clock) if place is None else draw(place, lambda: real(clock))

            return read

        for name in CLOCKS:
            real = getattr(time, name, None)
            if real is None:  # of this thread alone: not on every system
                continue
            if name in FORWARD:
                self.deck.real[name] = real
            self._function(time, name, clock(name, real))
        for name, argument in FORMATTED.items():
            self._function(time, name, formatted(name, argument, getattr(time, name)))
        for name in NUMBERED:
            if hasattr(time, name):
                self._function(time, name, numbered(name, getattr(time, name)))

    def _entropy(self) -> None:
        stream, draw = self.deck.stream, self.deck.draw

        def urandom(home: _Home, size: int, /) -> bytes:
            place = stream("urandom")
            if place is not None:
                return draw(place, lambda: _urandom(size), lambda value: len(value) == size)
            value = _urandom(size)
            if self.deck.serves:
                self.deck.library("urandom", value)
            return value

        self._function(os, "urandom", urandom)
        if not hasattr(os, "getrandom"):
            return
        real_getrandom = os.getrandom

        def getrandom(home: _Home, size: int, flags: int = 0) -> bytes:
            place = stream("urandom")
            if place is None:
                return real_getrandom(size, flags)
            return draw(place, lambda: real_getrandom(size, flags), lambda value: len(value) <= size)

        self._function(os, "getrandom", getrandom)

    def _ids(self, module: ModuleType, names: tuple[str, ...]) -> None:
        """These functions give whole ids of the tape: not the parts that they are made of."""
        stream, draw = self.deck.stream, self.deck.draw

        def whole(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def make(home: _Home, *given: Any, **named: Any) -> Any:
                place = stream(name)
                if place is None:
                    value = real(*given, **named)
                    if self.deck.serves:
                        self.deck.library(name, str(value))
                    return value
                # What it reads itself is read below this module, so it is nobody's draw.
                return module.UUID(draw(place, lambda: str(real(*given, **named))))

            return make

        for name in names:
            if hasattr(module, name):
                self._function(module, name, whole(name, getattr(module, name)))

    def _uuid(self, module: ModuleType) -> None:
        real = getattr(module, "_generate_time_safe", None)
        if real is None:
            return
        stream, draw = self.deck.stream, self.deck.draw

        def generate() -> Any:
            place = stream("uuid1")
            return real() if place is None else draw(place, real)

        self.replace(module, "_generate_time_safe", generate)

    def _random(self, module: ModuleType) -> None:
        """The hidden instance keeps its state; its two primitives, and seeding from the system, draw."""
        stream, draw = self.deck.stream, self.deck.draw
        base = module.Random
        base_random, base_bits, base_seed = base.random, base.getrandbits, base.__dict__["seed"]

        class Shared(base):
            """The instance behind the module's functions."""

            def random(self) -> float:
                """The next value of [0, 1)."""
                place = stream("random")
                return base_random(self) if place is None else draw(place, lambda: base_random(self))

            def getrandbits(self, k: int, /) -> int:
                """The next k bits."""
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
        """The legacy global state, which numpy seeded while it was imported, is seeded by a draw."""
        stream = self.deck.stream_of("", "numpy.seed", "numpy.random:import")
        if self.deck.serves and not stream.recorded:
            return
        if self._installing and not self.deck.serves:  # the agent may have seeded it already
            self._miss("prebound", "numpy's global state", "numpy.random")
            return
        place = (stream, 0, None)
        data: bytes = self.deck.draw(place, lambda: _urandom(16))
        seed = module.seed
        seed([int.from_bytes(data[at : at + 4], "big") for at in (0, 4, 8, 12)])
        ours = [True]

        def seeded(home: _Home, *given: Any, **named: Any) -> None:
            ours[0] = False
            seed(*given, **named)

        def go_live() -> None:
            if ours[0] and not self.restored:  # a seed of the agent's own is its to keep
                seed()

        self._function(module, "seed", seeded)
        self.deck.when_live.append(go_live)

    def _dates(self) -> None:
        stream, draw = self.deck.stream, self.deck.draw
        stamp, date, utc = _datetime.datetime, _datetime.date, _datetime.UTC
        true_now, true_utcnow = stamp.__dict__["now"], stamp.__dict__["utcnow"]
        true_today = date.__dict__["today"]

        def real_now(zone: Any = None) -> Any:
            return true_now.__get__(None, stamp)(zone)

        def of(cls: Any, value: Any) -> Any:
            if type(value) is cls:
                return value
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
            if place is None:
                if issubclass(cls, stamp):
                    return true_now.__get__(None, cls)()
                return true_today.__get__(None, cls)()
            value = draw(place, real_now)
            return of(cls, value) if issubclass(cls, stamp) else cls(value.year, value.month, value.day)

        for owner, name, ours in ((stamp, "now", now), (stamp, "utcnow", utcnow), (date, "today", today)):
            try:
                before = ctypes_dict.replace(owner, name, classmethod(ours))
            except Exception as why:
                self._miss("uncovered", f"{owner.__name__}.{name}", str(why) or type(why).__name__)
                continue
            self._undo.add(lambda at=(owner, name, before): ctypes_dict.replace(*at) and None)
