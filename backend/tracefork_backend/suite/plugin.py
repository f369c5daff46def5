"""The hooks that pytest calls; what they need is imported once a test is marked."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from .mode import MODES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .taped import Taped

MARK = (
    "tracefork(name=None, match='exact', ignore=(), allow_hosts=(), skip_hosts=(), tools=None, draws=False):"
    " model calls of the test are answered from its tape"
)
OUTCOME_MARK = (
    "tracefork_outcome(times=20, at_least=0.8, budget=None): under --tracefork=live the test is run so many"
    " times, and fails if it is shown to pass in fewer of them"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flags and settings."""
    group = parser.getgroup("tracefork", "model calls from tapes")
    group.addoption(
        "--tracefork",
        choices=MODES,
        help="What marked tests get: answers from their tapes (replay, the default), the model's where"
        " there is no tape yet, which is recorded (once), or always (rewrite), or without a tape (live); or"
        " their tapes' answers up to the first request that is another one, and the model's from there on"
        " (fork).",
    )
    group.addoption(
        "--tracefork-budget",
        type=float,
        metavar="USD",
        help="What all tests may spend together under --tracefork=fork; each worker of pytest -n has its"
        " share.",
    )
    group.addoption(
        "--tracefork-unused",
        choices=("list", "error"),
        default="list",
        help="What to do about tapes that no test has: say so, or fail.",
    )
    group.addoption("--tracefork-prune", action="store_true", help="Delete tapes that no test has.")
    parser.addini("tracefork", "The mode where --tracefork does not name one.", default="replay")
    parser.addini("tracefork_tapes", "The folder of tapes, beside each test's file.", default="tapes")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marks known."""
    config.addinivalue_line("markers", MARK)
    config.addinivalue_line("markers", OUTCOME_MARK)
    if (usd := config.getoption("--tracefork-budget")) is not None:
        if not 0 <= usd < float("inf"):
            raise pytest.UsageError(f"--tracefork-budget {usd}: write dollars, such as 2.00")
        if config.getoption("--tracefork") != "fork":
            raise pytest.UsageError("--tracefork-budget is for --tracefork=fork")


@pytest.fixture
def tracefork(request: pytest.FixtureRequest) -> Taped:
    """The test's tape: its path, its exchanges, and once the test has ended, its receipt and cost."""
    from .taped import taped

    found = taped(request.node)
    if found is None:
        pytest.fail("the fixture `tracefork` is for tests under @pytest.mark.tracefork", pytrace=False)
    return found


def pytest_itemcollected(item: pytest.Item) -> None:
    """Know which tapes have a test, whether or not it is run."""
    if item.get_closest_marker("tracefork") is not None:
        from .taped import known

        known(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a marked test that cannot be given its tape before any fixture is made."""
    if item.get_closest_marker("tracefork") is not None:
        from .taped import taped

        found = taped(item)
        if found is not None:
            found.check()
    elif item.get_closest_marker("tracefork_outcome") is not None:
        from .outcome import check

        check(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Have the test's own call made with its tape in place."""
    if item.get_closest_marker("tracefork") is not None:
        from .taped import in_place

        with in_place(item):
            return (yield)
    if item.get_closest_marker("tracefork_outcome") is not None:
        from .outcome import many_times

        with many_times(item):
            return (yield)
    return (yield)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Find tapes that no test has, in the files that were collected whole."""
    if _loaded():
        from .leftover import find

        find(session)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take from a worker of xdist what it found: each has collected all tests."""
    told = getattr(node, "workeroutput", {}).get("tracefork_unused")
    if told:
        from .leftover import take

        take(node.config, told)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where tapes are left over and that is an error."""
    if session.config.getoption("--tracefork-unused") == "error" and f"{__package__}.leftover" in sys.modules:
        from .leftover import UNUSED

        if session.config.stash.get(UNUSED, []) and not session.exitstatus:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what tapes saved, and which of them are left over."""
    told = [
        dict(report.user_properties)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call" and "tracefork" in dict(report.user_properties)
    ]
    if told or _loaded():
        from .summary import write

        write(terminalreporter, config, told)


def _loaded() -> bool:
    """Return whether a marked test was met."""
    return f"{__package__}.taped" in sys.modules
