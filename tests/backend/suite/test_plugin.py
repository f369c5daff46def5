"""The pytest plugin, as a project of somebody's uses it: pytest started anew, real SDKs, a model server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tracefork_backend.simulate import ModelServer
from tracefork_backend.suite.names import cleaned

TESTS = """
import os
import unittest

import anthropic
import pytest

def ask(text):
    client = anthropic.Anthropic(api_key="k", base_url=os.environ["MODEL_URL"], max_retries=0)
    said = client.messages.create(
        model="claude-sonnet-5", max_tokens=50, messages=[{"role": "user", "content": text}]
    )
    return said.content[0].text

@pytest.mark.tracefork
def test_books(tracefork):
    assert ask(os.environ.get("SAY", "hello"))

@pytest.mark.tracefork
@pytest.mark.parametrize("text", ["a/b", "a b"])
def test_each(text):
    assert ask(text)

class TestInClass:
    @pytest.mark.tracefork
    async def test_waits(self):
        client = anthropic.AsyncAnthropic(api_key="k", base_url=os.environ["MODEL_URL"], max_retries=0)
        assert await client.messages.create(
            model="claude-sonnet-5", max_tokens=50, messages=[{"role": "user", "content": "waits"}]
        )

class TestOld(unittest.TestCase):
    @pytest.mark.tracefork
    def test_case(self):
        assert ask("old")

def test_of_nothing():
    pass
"""
CONFTEST = """
import asyncio, inspect, pytest

@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        asyncio.run(pyfuncitem.obj())
        return True
"""


class Project:
    """A folder with tests, and pytest started in it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        (folder / "tests").mkdir()
        (folder / "conftest.py").write_text(CONFTEST)
        (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = ignore\n")

    def write(self, text: str, name: str = "test_agent") -> None:
        """A file of tests."""
        (self.folder / "tests" / f"{name}.py").write_text(text)

    def pytest(self, *flags: str, **env: str) -> tuple[int, str]:
        """Exit status and what was printed."""
        kept = {key: value for key, value in os.environ.items() if key not in ("CI", "COLUMNS")}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *flags],
            cwd=self.folder,
            env={**kept, "MODEL_URL": self.url, "COLUMNS": "200", **env},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def tapes(self) -> list[Path]:
        """All that were recorded."""
        return sorted(self.folder.rglob("*.jsonl"))


@pytest.fixture
def project(tmp_path: Path, server: ModelServer) -> Project:
    """An empty project, and a model that answers."""
    return Project(tmp_path, server.url)


@pytest.mark.slow
def test_tapes_are_recorded_once_and_answer_from_then_on(project: Project) -> None:
    """Without a tape each test says what to type; with it no model is asked, and drift is the failure."""
    project.write(TESTS)
    status, said = project.pytest()
    assert status == 1
    assert "record it with  pytest --tracefork=once 'tests/test_agent.py::test_books'" in said

    status, said = project.pytest("--tracefork=once")
    assert (status, len(project.tapes())) == (0, 5), said
    assert "tracefork: 5 tests, 5 exchanges recorded" in said
    before = {path: path.read_bytes() for path in project.tapes()}

    nowhere = "http://127.0.0.1:9"
    project.url, was = nowhere, project.url
    status, said = project.pytest("--tracefork=once", MODEL_URL=was)
    assert status == 0, said
    assert {path: path.read_bytes() for path in project.tapes()} == before

    status, said = project.pytest("--junitxml=out.xml", "-n", "2", MODEL_URL=was)
    assert status == 0, said
    assert "tracefork: 5 tests, 5 exchanges answered from tapes" in said
    told = ElementTree.parse(project.folder / "out.xml").iter("property")
    assert sum(one.get("name") == "tracefork_exchanges" for one in told) == 5

    status, said = project.pytest("-k", "books", MODEL_URL=was, SAY="good morning")
    assert status == 1
    assert "messages[0].content (prompt): recorded hello, got good morning" in said
    assert "if that is meant: pytest --tracefork=rewrite 'tests/test_agent.py::test_books'" in said
    assert "from there on: pytest --tracefork=fork 'tests/test_agent.py::test_books'" in said

    status, said = project.pytest("-k", "books", "--tracefork=rewrite", MODEL_URL=was, SAY="good morning")
    assert status == 0, said
    assert project.pytest("-k", "books", MODEL_URL=was, SAY="good morning")[0] == 0


LOOPS = """
STEPS = int(os.environ.get("STEPS", "3"))

def loop(last="c"):
    for text in ["a", os.environ.get("SECOND", "b"), last, "d"][:STEPS]:
        said = ask(text)
    return said

@pytest.mark.tracefork
def test_loop(tracefork):
    assert loop() and os.environ.get("WRONG") is None

@pytest.mark.tracefork
@pytest.mark.parametrize("last", ["x", "y"])
def test_each(last):
    assert loop(last)
"""


@pytest.mark.slow
def test_a_fork_goes_live_where_it_differs(project: Project, server: ModelServer) -> None:
    """What is asked as on the tape costs nothing; from the first other request on the model is asked."""
    project.write(TESTS[: TESTS.index("@pytest.mark")] + LOOPS)
    assert project.pytest("--tracefork=once")[0] == 0
    before = {path: path.read_bytes() for path in project.tapes()}

    def asked() -> list[str]:
        texts = [one.json()["messages"][0]["content"] for one in server.requests]
        server.requests.clear()
        return texts

    asked()
    status, said = project.pytest("--tracefork=fork", "-rP")
    assert (status, asked()) == (0, []), said
    assert "tracefork: 3 tests, 9 exchanges answered from tapes" in said

    status, said = project.pytest("--tracefork=fork", "-rP", "-k", "loop", SECOND="B", STEPS="4")
    assert (status, asked()) == (0, ["B", "c", "d"]), said
    assert "live from step 1" in said
    assert "test_agent.py:10 ask" in said
    assert "messages[0].content (prompt): recorded b, got B" in said
    assert "record anew" not in said
    assert "tracefork: 1 test, 1 exchange answered from tapes, 3 asked of models, $0." in said
    assert {path: path.read_bytes() for path in project.tapes()} == before

    status, said = project.pytest("--tracefork=fork", "-k", "loop", SECOND="B", WRONG="1")
    assert (status, asked()) == (1, ["B", "c"]), said
    assert "os.environ.get" in said  # the test's own failure
    assert "live from step 1" in said

    flags = ("--tracefork=fork", "--tracefork-budget=1", "--junitxml=out.xml")
    status, said = project.pytest(*flags, "-n", "2", SECOND="B")
    assert (status, len(asked())) == (0, 6), said
    told = list(ElementTree.parse(project.folder / "out.xml").iter("property"))
    assert [one.get("value") for one in told if one.get("name") == "tracefork_live_from"] == ["1"] * 3


@pytest.mark.slow
def test_a_fork_is_held_to_its_budget(project: Project, server: ModelServer) -> None:
    """The call that the budget may not hold is not made, and the failure says so, whatever the agent does."""
    hides = """
@pytest.mark.tracefork
def test_hides():
    for text in [os.environ.get("FIRST", "a"), "b", "c"]:
        try:
            ask(text)
        except Exception:
            pass
"""
    project.write(TESTS[: TESTS.index("@pytest.mark")] + hides + LOOPS)
    assert project.pytest("--tracefork=once")[0] == 0
    server.requests.clear()
    status, said = project.pytest("--tracefork=fork", "--tracefork-budget=0", FIRST="A", SECOND="B")
    assert (status, server.requests) == (1, []), said
    assert said.count("the budget of $0 (--tracefork-budget) holds no further call") >= 4
    assert "Traceback" not in said

    # By its fifty tokens and its bytes a call may take $0.00129: the first fits, and no second one after it.
    status, said = project.pytest("--tracefork=fork", "--tracefork-budget=0.0013", "-k", "hides", FIRST="A")
    assert (status, len(server.requests)) == (1, 1), said
    assert "this test spent $0.0" in said
    for wrong in ("-1", "nan", "much"):
        status, said = project.pytest("--tracefork=fork", f"--tracefork-budget={wrong}")
        assert status == 4, said
        assert "--tracefork-budget" in said
    status, said = project.pytest("--tracefork=replay", "--tracefork-budget=1")
    assert status == 4
    assert "--tracefork-budget is for --tracefork=fork" in said


@pytest.mark.slow
def test_what_is_no_tape_of_a_test(project: Project) -> None:
    """No call, a failing test, two that write one tape, a drift that the test hides, a damaged tape."""
    asks = TESTS[: TESTS.index("@pytest.mark")]
    project.write(
        asks
        + """
@pytest.mark.tracefork
def test_asks_nobody():
    pass

@pytest.mark.tracefork
def test_fails():
    assert ask("hello") == "never"

@pytest.mark.tracefork("shared")
def test_first():
    assert ask("hello")

@pytest.mark.tracefork("shared")
def test_second():
    assert ask("hello")

@pytest.mark.tracefork(retries=3)
def test_strange():
    pass

@pytest.mark.tracefork
def test_hides():
    try:
        ask(os.environ.get("SAY", "hello"))
    except Exception:
        pass

@pytest.mark.tracefork
def test_skips():
    pytest.skip("not today")
"""
    )
    status, said = project.pytest("--tracefork=once")
    assert status == 1
    assert "the test made no model call that can be recorded" in said
    assert "both write the tape tests/tapes/test_agent/shared.jsonl" in said
    assert "@pytest.mark.tracefork takes no retries" in said
    assert [path.stem for path in project.tapes()] == ["shared", "test_hides"]

    status, said = project.pytest("-k", "hides", SAY="other")
    assert status == 1
    assert "recorded hello, got other" in said

    tape = next(path for path in project.tapes() if path.stem == "test_hides")
    tape.write_bytes(tape.read_bytes().replace(b"hello", b"hallo"))
    status, said = project.pytest("-k", "hides")
    assert status == 1
    assert "record it anew with  pytest --tracefork=rewrite" in said


@pytest.mark.slow
def test_an_application_in_the_process_runs_for_real(project: Project) -> None:
    """What it asks is on the tape, not what it is asked; a connection round it fails unless it is meant."""
    asks = TESTS[: TESTS.index("@pytest.mark")]
    project.write(
        asks
        + """
import urllib.request
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

served = []

def answer(request):
    served.append(1)
    return PlainTextResponse(ask("hello"))

@pytest.mark.tracefork
def test_application(tracefork):
    assert TestClient(Starlette(routes=[Route("/", answer)])).get("/").text
    assert served == [1]

@pytest.mark.tracefork(allow_hosts=["127.0.0.1"] if os.environ.get("ALLOW") else ())
def test_round():
    assert ask("hello")
    if os.environ.get("ROUND"):
        urllib.request.urlopen(os.environ["MODEL_URL"] + "/raw/echo", data=b"x").read()
"""
    )
    status, said = project.pytest("--tracefork=once")
    assert status == 0, said
    assert "2 tests, 2 exchanges recorded" in said
    status, said = project.pytest()
    assert status == 0, said
    status, said = project.pytest("-k", "round", ROUND="1")
    assert status == 1
    assert "by urllib at" in said
    assert project.pytest("-k", "round", ROUND="1", ALLOW="1")[0] == 0


@pytest.mark.slow
def test_ci_never_records_by_itself(project: Project) -> None:
    """A setting in a file gives way; the command line does not."""
    project.write(TESTS)
    (project.folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = ignore\ntracefork = once\n")
    status, said = project.pytest("-k", "books", CI="true")
    assert status == 1
    assert "there is no tape" in said
    assert project.pytest("-k", "books", "--tracefork=once", CI="true")[0] == 0
    assert project.pytest("-k", "each")[0] == 0
    assert len(project.tapes()) == 3


@pytest.mark.slow
def test_tapes_without_a_test_are_named(project: Project) -> None:
    """Also where xdist runs the tests; deselected tests keep theirs."""
    project.write(TESTS)
    project.pytest("--tracefork=once")
    left = project.folder / "tests" / "tapes" / "test_agent" / "test_gone.jsonl"
    left.write_bytes(project.tapes()[0].read_bytes())
    status, said = project.pytest("-k", "books")
    assert status == 0
    assert said.count("not of any test") == 1
    assert "test_gone.jsonl" in said
    assert project.pytest("--tracefork-unused=error", "-n", "2")[0] == 1
    status, said = project.pytest("--tracefork-prune")
    assert status == 0
    assert not left.exists()
    assert len(project.tapes()) == 5


@pytest.mark.slow
def test_a_rate_is_judged_by_its_interval(project: Project) -> None:
    """Only where models may be asked; it ends as soon as more trials would not change the answer."""
    asks = TESTS[: TESTS.index("@pytest.mark")]
    project.write(
        asks
        + """
import random
chance = random.Random(7)

@pytest.mark.tracefork_outcome(times=30, at_least=0.8, budget=1.00)
def test_good():
    assert ask("hello")

@pytest.mark.tracefork_outcome(times=30, at_least=0.8)
def test_bad():
    assert ask("hello") and chance.random() < 0.3

@pytest.mark.tracefork_outcome(times=5, at_least=0.8)
def test_open():
    assert ask("hello") and chance.random() < 0.9

@pytest.mark.tracefork_outcome(times=30, budget=0.0007)
def test_poor():
    assert ask("hello")

@pytest.mark.tracefork_outcome(times=0)
def test_wrong():
    pass

class TestOld(unittest.TestCase):
    @pytest.mark.tracefork_outcome(times=30)
    def test_case(self):
        self.assertEqual(ask("hello"), "never")
"""
    )
    status, said = project.pytest("-rs")
    assert status == 1  # the wrong mark alone
    assert "5 skipped" in said
    assert "it asks its model in 30 trials, for at most $1.00: pytest --tracefork=live" in said
    status, said = project.pytest("--tracefork=live", "--junitxml=out.xml", "-rA")
    assert status == 1, said
    failed = {line.split("::", 1)[1].split(" ")[0] for line in said.splitlines() if line.startswith("FAILED")}
    assert failed == {"test_bad", "TestOld::test_case"}, said
    assert said.count("shown to pass in fewer than 0.8 of its runs") >= 2
    assert said.count("more trials would not change it") >= 2
    assert "would not hold another trial" in said
    names = [one.get("name") for one in ElementTree.parse(project.folder / "out.xml").iter("property")]
    assert names.count("tracefork_pass_rate_low") == 5


@pytest.mark.slow
def test_the_interval_holds_at_whatever_trial_it_is_looked_at() -> None:
    """Over all looks at once each bound misses the rate in at most its share of many simulated tests."""
    import random

    from tracefork_backend.suite.outcome import ALPHA, Rate

    dice, low, high, runs = random.Random(1), 0, 0, 400
    for _ in range(runs):
        rate, missed = Rate(), [False, False]
        for _ in range(25):
            good = dice.random() < 0.8
            rate.passed, rate.failed = rate.passed + good, rate.failed + (not good)
            bounds = rate.bounds()
            missed = [missed[0] or bounds[0] > 0.8, missed[1] or bounds[1] < 0.8]
        low, high = low + missed[0], high + missed[1]
    # Three standard deviations of a share of ALPHA above it.
    most = runs * ALPHA + 3 * (runs * ALPHA * (1 - ALPHA)) ** 0.5
    assert low <= most
    assert high <= most


def test_names_are_different_for_different_tests() -> None:
    """A plain name stays as it is; others are cleaned, cut, and told apart."""
    assert cleaned("test_one") == "test_one"
    assert cleaned("test_one[x-1]") == "test_one-x-1"
    given = [
        "test[a/b]",
        "test[a b]",
        "test[a-b]",
        f"test[{'z' * 300}]",
        f"test[{'z' * 301}]",
        "test[../../x]",
        "test[]",
    ]
    made = [cleaned(name) for name in given]
    assert len(set(made)) == len(given)
    assert all(len(name) < 120 and "/" not in name and not name.startswith(".") for name in made)


def test_nothing_is_imported_before_a_mark_is_met() -> None:
    """The plugin is loaded by every pytest of its environment."""
    code = (
        "import pytest, sys; before = set(sys.modules); import tracefork_backend.suite.plugin;"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(
        [
            "tracefork_backend",
            "tracefork_backend.suite",
            "tracefork_backend.suite.mode",
            "tracefork_backend.suite.plugin",
        ]
    )
