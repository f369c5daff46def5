"""One marked test with its tape: recorded, or answered from it and compared."""

from __future__ import annotations

import secrets
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tracefork_otel.errors import TapeError, TraceforkError
from tracefork_otel.settings import Settings
from tracefork_otel.tape.start import HowStarted
from tracefork_otel.tape.tape import Tape

from ..agents.in_place import playing
from ..rerun.budget import Budget
from ..rerun.reconstruct import reconstruct
from ..rerun.replaying import ReplayResult, replay
from ..store import open_store
from ..store.prices import bill
from . import names
from .forking import MEANT, fork
from .mode import Mode, mode_of

_TAPED = pytest.StashKey["Taped"]()
TAPES = pytest.StashKey[dict[Path, str]]()
"""The tapes that collected tests have, each with the first test that has it."""
_ARGUMENTS = ("name", "match", "ignore", "allow_hosts", "skip_hosts", "tools", "draws")

_ASKED_OTHERWISE = ("prompt", "model", "parameter", "extra")
"""Causes of a drift after which a model may be asked what it says now; chance, or a failed tool, is none."""
_IN_PROCESS = ("testserver", "test")
"""Hosts of applications that a test calls in its own process, as Starlette's and FastAPI's documentation name
them: they are what is tested, and run for real."""


def known(item: pytest.Item) -> None:
    """Note the tape of a collected test."""
    found = Taped(item)
    item.stash[_TAPED] = found
    item.config.stash.setdefault(TAPES, {}).setdefault(found.path, item.nodeid)


def taped(item: pytest.Item) -> Taped | None:
    """Return what a marked test has for its tape; None for others."""
    return item.stash.get(_TAPED, None)


class Taped:
    """A test's tape: `path`, `mode`, and after the test `tape`, `receipt`, `exchanges` and `cost_usd`."""

    def __init__(self, item: pytest.Item) -> None:
        mark = item.get_closest_marker("tracefork")
        assert mark is not None
        self._item = item
        self._wrong: str | None = None
        strange = [name for name in mark.kwargs if name not in _ARGUMENTS]
        if strange or len(mark.args) > 1 or (mark.args and "name" in mark.kwargs):
            what = strange[0] if strange else "a second name"
            self._wrong = f"@pytest.mark.tracefork takes no {what}: it takes {', '.join(_ARGUMENTS)}"
        self._how: dict[str, Any] = dict(mark.kwargs)
        name = mark.args[0] if mark.args else self._how.pop("name", None)
        self.mode: Mode = mode_of(item.config)
        self.path: Path = names.tape_of(item, name)
        self.tape: Tape | None = None
        self.receipt: tuple[str, ...] = ()

    @property
    def exchanges(self) -> tuple[Any, ...]:
        """The exchanges of the tape, in step order; none before the first recording has ended."""
        return self.tape.exchanges if self.tape is not None else ()

    @property
    def cost_usd(self) -> float | None:
        """What the tape's exchanges cost when they were recorded, as far as prices are known."""
        return bill(self.exchanges).usd

    @property
    def _skipped(self) -> tuple[str, ...]:
        return (*_IN_PROCESS, *self._how.get("skip_hosts", ()))

    @property
    def records(self) -> bool:
        """Whether the test asks the model and its calls are written down."""
        return self.mode == "rewrite" or (self.mode == "once" and not self.path.exists())

    def check(self) -> None:
        """Fail the test where it cannot be given its tape, and say what to type."""
        if self._wrong is not None:
            pytest.fail(self._wrong, pytrace=False)
        if self.mode == "live":
            return
        shown = names.said(self.path, self._item)
        if self.mode not in ("replay", "fork"):
            first = self._item.config.stash[TAPES].get(self.path)
            if first is not None and first != self._item.nodeid:
                pytest.fail(
                    f"{first} and {self._item.nodeid} both write the tape {shown}: give one of them another"
                    " name, @pytest.mark.tracefork('…')",
                    pytrace=False,
                )
        if self.records:
            return
        if not self.path.exists():
            pytest.fail(
                f"there is no tape {shown}: record it with  pytest --tracefork=once {self._item.nodeid!r}",
                pytrace=False,
            )
        try:
            self.tape = Tape.load(self.path)
        except TapeError as error:
            pytest.fail(f"{error}\nrecord it anew with  {self._anew}", pytrace=False)

    @property
    def _anew(self) -> str:
        return f"pytest --tracefork=rewrite {self._item.nodeid!r}"

    @property
    def _from_there(self) -> str:
        return f"pytest --tracefork=fork {self._item.nodeid!r}"

    def run(self, call: Callable[[], None]) -> None:
        """Make the test's own call with its tape in place; its failure is the test's, else the drift's."""
        if self.mode == "live":
            call()
        elif self.records:
            self._record(call)
        elif self.mode == "fork":
            self._fork(call)
        else:
            self._replay(call)

    def _record(self, call: Callable[[], None]) -> None:
        with tempfile.TemporaryDirectory(prefix="tracefork-") as folder:
            how = Settings(
                mode="record",
                store=Path(folder),
                seal=False,
                draws=bool(self._how.get("draws")),
                skip_hosts=self._skipped,
            )
            with playing(how, secrets.token_hex(16), secrets.token_hex(8)):
                call()
            if getattr(self._item, "_excinfo", None):
                return  # a unittest.TestCase that failed, which is told so and not raised
            with open_store(folder) as store:
                runs = store.runs()
                if not runs:
                    pytest.fail(
                        "the test made no model call that can be recorded, so that it has no tape: leave its"
                        " mark out, or see docs/limits.md for what is not seen",
                        pytrace=False,
                    )
                if len(runs) > 1:
                    listed = ", ".join(run.name for run in runs)
                    pytest.fail(
                        f"the test's calls are several runs ({listed}): a tape has one", pytrace=False
                    )
                tape = reconstruct(store, runs[0])
        # How pytest was started is another matter on each machine, and no part of what the test asks.
        self.tape = replace(tape, start=HowStarted(), name=self._item.nodeid)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.tape.dump(self.path)
        self._say("recorded", [f"recorded {names.said(self.path, self._item)}"])

    def _replay(self, call: Callable[[], None]) -> None:
        assert self.tape is not None
        failure, called = _kept(call)
        result = replay(self.tape, agent=called, **self._compared)
        self.receipt = result.receipt
        self._say("replayed", list(result.receipt))
        # A test that fails by itself asks no more; what is missing on the tape then is no other finding.
        drifts = [one for one in result.drifts if not failure or one.cause != "missing"]
        if failure and not drifts and not result.leaks:
            raise failure[0].with_traceback(failure[0].__traceback__)
        if not result.passed:
            text = "\n\n".join(one.text for one in drifts) or _short(result)
            shown = names.said(self.path, self._item)
            asks = any(one.cause in _ASKED_OTHERWISE for one in drifts)
            from_there = f"\nto ask the model from there on: {self._from_there}" if asks else ""
            pytest.fail(
                f"the test no longer does what is on its tape {shown}\n\n{text}\n\n"
                f"if that is meant: {self._anew}{from_there}" + _beside(failure),
                pytrace=False,
            )

    @property
    def _compared(self) -> dict[str, Any]:
        """How the tape is played."""
        return {
            "match": self._how.get("match", "exact"),
            "ignore": self._how.get("ignore", ()),
            "allow_hosts": self._how.get("allow_hosts", ()),
            "skip_hosts": self._skipped,
            "tools": self._how.get("tools"),
        }

    def _fork(self, call: Callable[[], None]) -> None:
        assert self.tape is not None
        failure, called = _kept(call)
        forked = fork(self.tape, called, budget_of(self._item.config), **self._compared)
        self.receipt = forked.receipt
        more = [("tracefork_live_from", forked.live_from)] if forked.live_from is not None else []
        self._say("forked", list(forked.receipt), exchanges=forked.served, usd=forked.paid.usd, more=more)
        self._item.user_properties.append(("tracefork_asked", forked.asked))
        if forked.wrong is not None:
            pytest.fail(forked.wrong + _beside(failure), pytrace=False)
        if failure:
            raise failure[0].with_traceback(failure[0].__traceback__)

    def _say(
        self,
        what: str,
        receipt: list[str],
        *,
        exchanges: int | None = None,
        usd: float | None = None,
        more: Sequence[tuple[str, object]] = (),
    ) -> None:
        """Put the receipt and the figures into the report: the tape's, unless others are given."""
        assert self.tape is not None
        self._item.add_report_section("call", "tracefork", "\n".join(receipt))
        self._item.user_properties += [
            ("tracefork", what),
            ("tracefork_exchanges", self.tape.steps if exchanges is None else exchanges),
            ("tracefork_cost_usd", bill(self.tape.exchanges).usd if usd is None else usd),
            *more,
        ]


_BUDGET = pytest.StashKey[Budget]()


def budget_of(config: pytest.Config) -> Budget:
    """Return what all tests of this process may spend together; a worker of xdist has its share."""
    if _BUDGET not in config.stash:
        usd = config.getoption("--tracefork-budget")
        told: dict[str, Any] = getattr(config, "workerinput", {})
        config.stash[_BUDGET] = Budget(None if usd is None else usd / int(told.get("workercount", 1)))
    return config.stash[_BUDGET]


def _kept(call: Callable[[], None]) -> tuple[list[BaseException], Callable[[], None]]:
    """Return a call that raises nothing that a test fails by, and where that is kept instead."""
    failure: list[BaseException] = []

    def called() -> None:
        try:
            call()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # pytest's own skip and fail are no Exception
            failure.append(error)

    return failure, called


def _short(result: ReplayResult) -> str:
    """Return what a replay without a drift lacks, without the digests of its receipt."""
    lines = [line for line in result.receipt[1:] if line.split(" ", 1)[0] not in ("digest", "tape", "exit")]
    if result.leaks:
        lines.append(MEANT)
    return "\n".join(lines)


def _beside(failure: list[BaseException]) -> str:
    if not failure:
        return ""
    lines = traceback.format_exception_only(failure[0])
    return f"\n\nthe test then failed with {''.join(lines).strip()}"


@contextmanager
def in_place(item: pytest.Item) -> Iterator[None]:
    """Have `item.runtest`, whoever made it, called with the test's tape in place within the block."""
    found = taped(item)
    if found is None:
        yield
        return
    own = item.runtest
    item.runtest = lambda: found.run(own)  # type: ignore[method-assign]
    try:
        yield
    except TraceforkError as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        del item.runtest
