"""Oracles: what is graded, in which order, and what cannot be."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import tracefork_backend as tf
from stored import Recorder, answered, asked, record, trace
from tracefork_backend.grading.exit_code import exit_code
from tracefork_backend.grading.field import field
from tracefork_backend.grading.function import function
from tracefork_backend.grading.graded import Graded, graded_run
from tracefork_backend.grading.kinds import from_flags
from tracefork_backend.grading.oracle import grade, name_of, remarks_of
from tracefork_backend.grading.regex import regex
from tracefork_backend.store import open_store

from tracefork_otel import UsageError


def graded(output: object = None, **fields: object) -> Graded:
    """A run that ended so."""
    return Graded(run_id="4bf92f3577b34da6a3ce929d0e0e4736", output=output, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("output", "both", "success", "failure"),
    [
        ("BOOKED JL42", True, True, True),
        ("ERROR: sold out", False, False, False),
        ("BOOKED after ERROR", None, True, False),
        ("nothing", None, False, True),
    ],
)
def test_regex(output: str, both: bool | None, success: bool, failure: bool) -> None:
    """Two patterns have to agree, of one alone its absence is the opposite."""
    shown = graded(output)
    assert grade(regex("BOOKED", "ERROR"), shown) is both
    assert grade(regex(success="BOOKED"), shown) is success
    assert grade(regex(failure="ERROR"), shown) is failure


@pytest.mark.parametrize(
    ("success", "failure", "output", "near"),
    [
        ("refunded", None, "order REFUNDED, order REFUNDED", "'REFUNDED'"),
        ("BOOKED", "error", "Error: sold out", "'Error'"),
        ("success.$", None, "Success!", "'Success!'"),
        ("BOOKED", None, "nothing was booked", None),
        ("(?i)refunded", None, "REFUNDED", None),
        ("Done", "failed", "Done, none Failed, none failed", None),
        ("(a+)+b", None, "A" * 60, None),
    ],
)
def test_capitals_that_a_pattern_misses_are_named(
    success: str, failure: str | None, output: str, near: str | None
) -> None:
    """What only differs by them looks like the other outcome; words in small letters are no mark."""
    oracle = regex(success, failure)
    said = remarks_of(oracle, Graded(run_id="1", output=output))
    assert [one.split()[3] for one in said] == ([] if near is None else [near])
    for line in said:
        taken = re.search(r"; '(\(\?i\).+)' takes both", line)
        assert taken is not None
        assert re.search(taken[1], output)


@pytest.mark.slow
def test_a_pattern_without_repeats_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many forks at once are graded on threads, where others are searched for in a process each."""
    monkeypatch.setattr("tracefork_backend.grading.regex.can_interrupt", lambda limit_s: False)
    monkeypatch.setattr("tracefork_backend.grading.regex.subprocess", None)
    assert regex("BOOKED|DONE", "ERROR")(Graded(run_id="1", output="it is DONE")) is True
    with pytest.raises(AttributeError):
        regex("B(O)*KED")(Graded(run_id="1", output="it is DONE"))


def test_an_asynchronous_oracle(recwarn: pytest.WarningsRecorder) -> None:
    """It is refused in words, and Python has nothing to say of a coroutine that nobody awaited."""

    async def asked(run: Graded) -> bool:
        return True

    with pytest.raises(UsageError, match=r"asked is an `async def`.*asyncio\.run"):
        grade(asked, graded("yes"))  # type: ignore[arg-type]
    gc.collect()
    assert [str(one.message) for one in recwarn] == []


def test_the_return_value_goes_before_the_last_response() -> None:
    """What the agent gave back is graded, and only where it gave nothing the last response's text."""
    oracle = regex("yes")
    assert grade(oracle, graded("yes", last_text="no")) is True
    assert grade(oracle, graded({"answer": "yes"}, last_text="no")) is True
    assert grade(oracle, graded("no", last_text="yes")) is False
    assert grade(oracle, graded(" \n", last_text="yes")) is True
    assert grade(oracle, graded(None, last_text="yes")) is True


@pytest.mark.parametrize(
    ("output", "path", "value", "expected"),
    [
        ({"status": "confirmed"}, "status", "confirmed", True),
        ('{"status": "confirmed"}', "status", "confirmed", True),
        ('thinking…\ndone\n{"status": "sold out"}\n', "status", "confirmed", False),
        ({"seats": [{"n": 2}]}, "seats[0].n", 2, True),
        ({"seats": []}, "seats[0].n", 2, False),
        ({"ok": 1}, "ok", True, False),
        ({"ok": 1.0}, "ok", 1, True),
        ({}, "status", None, False),
        ({"status": None}, "status", None, True),
        ({"status": "a"}, "status[0]", "a", False),
        ("BOOKED", "status", "confirmed", None),
        ("", "status", "confirmed", None),
    ],
)
def test_field(output: object, path: str, value: object, expected: bool | None) -> None:
    """A value of the output's JSON decides; output without JSON cannot be graded."""
    assert grade(field(path, value), graded(output)) is expected


def test_exit_code() -> None:
    """The status decides; where nobody saw the process end there is none."""
    assert grade(exit_code(), graded(exit_status=0)) is True
    assert grade(exit_code(), graded(exit_status=1)) is False
    assert grade(exit_code(3), graded(exit_status=3)) is True
    assert grade(exit_code(), graded()) is None


def test_a_function_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pkg.mod:fn` is found beside the user's agent, and the import path is left as it was."""
    import sys

    (tmp_path / "checks_of_mine.py").write_text(
        "def graded(run):\n    return None if not run.text else run.text.startswith('BOOKED')\n"
        "def breaks(run):\n    raise KeyError('seat')\n"
        "def vague(run):\n    return 'maybe'\n"
    )
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    oracle = function("checks_of_mine:graded")
    assert sys.path == before
    assert [grade(oracle, graded(text)) for text in ("BOOKED", "no", "")] == [True, False, None]
    assert name_of(oracle) == "checks_of_mine:graded"
    with pytest.raises(UsageError, match=r"checks_of_mine:breaks failed on run 4bf92f35: KeyError: 'seat'"):
        grade(function("checks_of_mine:breaks"), graded("x"))
    with pytest.raises(UsageError, match=r"checks_of_mine:vague answered 'maybe'"):
        grade(function("checks_of_mine:vague"), graded("x"))


@pytest.mark.parametrize("path", ["nosuchmodule:fn", "json:nothing", "json", "json:__doc__"])
def test_a_function_that_is_not_there(path: str) -> None:
    """A name that leads nowhere is refused before anything runs, by that name."""
    with pytest.raises(UsageError, match=path):
        function(path)


def test_a_plain_function_is_an_oracle() -> None:
    """Any callable will do, and a failure of it names it."""

    def mine(run: Graded) -> bool | None:
        return run.exit_status == 0 and run.text != ""

    assert grade(mine, graded("x", exit_status=0)) is True
    assert "mine" in name_of(mine)

    def broken(run: Graded) -> bool:
        return int(run.text) > 3

    with pytest.raises(UsageError, match="broken failed on run 4bf92f35: ValueError"):
        grade(broken, graded("x"))


def test_a_run_with_a_problem_has_no_outcome() -> None:
    """What never came to its step is not failed, and the oracle is not even asked."""

    def asked_anyway(run: Graded) -> bool:
        raise AssertionError("asked")

    assert grade(asked_anyway, graded("BOOKED", problem="it ended before its step")) is None


@pytest.mark.parametrize("bad", ["(", "[a"])
def test_bad_patterns(bad: str) -> None:
    """A pattern that is none is refused by its text."""
    with pytest.raises(UsageError, match="no regular expression"):
        regex(bad)


def test_bad_paths_and_empty_oracles() -> None:
    """A path that is none, or that means several values, and an oracle without a pattern are refused."""
    with pytest.raises(UsageError, match="JSON path"):
        field("a..b", 1)
    with pytest.raises(UsageError, match="several"):
        field("items[*].id", 1)
    with pytest.raises(UsageError, match="needs a pattern"):
        regex()


def test_of_a_run_whose_output_nobody_kept_only_its_status_can_be_graded(tmp_path: Path) -> None:
    """Its forks are graded by what they print: the last model call's text says nothing of how it compares."""
    run_id = trace()
    recorder = Recorder(tmp_path)
    recorder.root(run_id, attributes={"tracefork.command": json.dumps(["agent"]), "tracefork.exit_status": 3})
    recorder.exchange(run_id, asked("hello"), answered("I look"))
    recorder.exchange(run_id, asked("hello", "I look", "go on"), answered("BOOKED it"))
    recorder.exchange(run_id, b"{}", b"logged: ERROR", url="https://tools.example/log")
    recorder.close()
    shown = graded_run(open_store(tmp_path).run(run_id))
    assert (shown.output, shown.exit_status, shown.last_text) == (None, 3, "BOOKED it")
    assert (shown.text, shown.unseen) == ("BOOKED it", True)
    assert grade(regex("BOOKED", "ERROR"), shown) is None
    assert grade(lambda graded: "BOOKED" in str(graded.output), shown) is None
    assert grade(exit_code(3), shown) is True


def test_a_recorded_output_is_graded_as_far_as_it_is_kept(tmp_path: Path) -> None:
    """What is found near its ends is found; what is not may be in between, so that nobody can tell."""
    told = {"tracefork.output": "began ... left out ... BOOKED", "tracefork.output.left_out": 7}
    shown = graded_run(open_store(tmp_path).run(record(tmp_path, attributes=told)))
    assert (shown.output, shown.left_out, shown.unseen) == (told["tracefork.output"], 7, False)
    assert grade(regex("BOOKED"), shown) is True
    assert grade(regex(failure="BOOKED"), shown) is False
    assert grade(regex("LOST"), shown) is None
    assert grade(regex("BOOKED", "LOST"), shown) is None
    assert grade(lambda graded: "LOST" in graded.text, shown) is None
    assert grade(tf.field("status", 1), graded('{"a": [1\n... \n{"status": 1}', left_out=9)) is True


CUT = "began\n... 7 bytes left out ...\nBOOKED\nended"


@pytest.mark.parametrize("in_a_thread", [False, True])
@pytest.mark.parametrize(
    ("pattern", "output", "found"),
    [
        (r"\A(?!.*ERROR)", CUT, None),
        (r"(?s)\A(?!.*ERROR)", CUT, None),
        (r"(?<!NOT )BOOKED", CUT, None),
        (r"(?s)began.*ended", CUT, None),  # over what was left out
        (r"(?s)\A[^E]*\Z", CUT, None),
        (r"left out", CUT, None),
        (r"(?m)^BOOKED$", CUT, None),  # its line may begin before
        (r"ended$", CUT, True),
        (r"\Abeg", CUT, True),
        (r"OOKED", CUT, True),
        (r"\A[^E]*\Z", "[1, 2]", None),  # of a generator's items none says where some are missing
        (r"1, 2", "[1, 2]", True),
    ],
)
def test_a_pattern_tells_of_a_cut_output_what_holds_of_the_whole(
    pattern: str, output: str, found: bool | None, in_a_thread: bool
) -> None:
    """Absence and what goes over the cut cannot be told; an output that is whole is graded by both."""
    with ThreadPoolExecutor(1) as executor:
        ask = (lambda call: executor.submit(call).result()) if in_a_thread else (lambda call: call())
        assert ask(lambda: grade(regex(pattern), graded(output, left_out=7))) is found
        lost = None if found is None else not found
        assert ask(lambda: grade(regex(failure=pattern), graded(output, left_out=7))) is lost
    assert grade(regex(r"\A(?!.*ERROR)"), graded(output)) is True


def _for_ever(shown: Graded) -> bool:
    while True:
        pass


def _asleep(shown: Graded) -> bool:
    time.sleep(10_000)
    return True


def _held(shown: Graded) -> bool:
    return re.search("(a+)+$", "a" * 60 + "b") is not None


@pytest.mark.parametrize("oracle", [_for_ever, _asleep, _held])
def test_a_function_that_does_not_end_is_named(oracle: Callable[[Graded], bool]) -> None:
    """After its time nobody waits for it any more, and the alarm that ended it is gone."""
    before = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0] > 0
    with pytest.raises(UsageError, match=rf"{oracle.__name__} did not end within 0.2 s on run 4bf92f35"):
        grade(oracle, graded("x"), limit_s=0.2)
    assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0] > 0) == before


@pytest.mark.parametrize("in_a_thread", [False, True])
def test_a_pattern_that_does_not_end_is_named(in_a_thread: bool) -> None:
    """Also off the main thread, where nothing can end a search: it is made in another process there."""
    endless = replace(regex("(a+)+$", "lost"), limit_s=0.5)
    shown = graded("a" * 60 + "b")
    with ThreadPoolExecutor(1) as executor:
        ask = (lambda call: executor.submit(call).result()) if in_a_thread else (lambda call: call())
        with pytest.raises(UsageError, match=r"regex success=/\(a\+\)\+\$/ .* did not end within 0.5 s"):
            ask(lambda: grade(endless, shown))
        assert ask(lambda: grade(regex("b$", "é"), shown)) is True


def test_a_function_off_the_main_thread_is_left_behind() -> None:
    """It cannot be ended there, but nobody waits for it."""
    with ThreadPoolExecutor(1) as executor:
        asleep = executor.submit(lambda: grade(_slow, graded("x"), limit_s=0.1))
        with pytest.raises(UsageError, match="_slow did not end within"):
            asleep.result()
        _LET_GO.set()
        with pytest.raises(UsageError, match="ZeroDivisionError"):
            executor.submit(lambda: grade(lambda one: bool(1 / 0), graded("x"))).result()
        assert executor.submit(lambda: grade(lambda one: True, graded("x"))).result() is True


@pytest.mark.slow
def test_a_named_function_off_the_main_thread_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search of `re` would keep every thread from running: it is asked in a process, once for many runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "apart_checks.py").write_text(
        "import os, re\n"
        "def good(run):\n"
        "    if 'pid' in run.text:\n        open('pids', 'a').write(f'{os.getpid()}\\n')\n"
        "    if 'lost' in run.text:\n        raise ValueError('no idea')\n"
        "    if 'odd' in run.text:\n        return 'yes'\n"
        "    return bool(re.search('(a+)+$', run.text)) or None\n"
    )
    named = [function("apart_checks:good")]
    with ThreadPoolExecutor(2) as executor:
        endless = executor.submit(lambda: grade(named[0], graded("a" * 60 + "b"), limit_s=0.5))
        with pytest.raises(UsageError, match=r"good did not end within 0\.5 s on run 4bf92f35"):
            endless.result(60)
        told = [executor.submit(lambda: grade(named[0], graded("pid a"), limit_s=60)).result() for _ in "12"]
        assert told == [True, True]
        for text, says in (("lost", "ValueError: no idea; let it"), ("odd", "answered 'yes' on run")):
            with pytest.raises(UsageError, match=says):
                executor.submit(lambda text=text: grade(named[0], graded(text), limit_s=60)).result()
    asked = {int(line) for line in (tmp_path / "pids").read_text().split()}
    assert len(asked) == 1
    assert os.getpid() not in asked
    named.clear()
    del endless
    gc.collect()
    assert not [pid for pid in asked if Path(f"/proc/{pid}").exists()]


_LET_GO = threading.Event()


def _slow(shown: Graded) -> bool:
    return _LET_GO.wait(100)


def test_a_recorded_return_value_is_graded_first(tmp_path: Path) -> None:
    """What the agent's function returned was recorded with the run."""
    run_id = record(tmp_path, attributes={"tracefork.result": '{"status": "confirmed"}'})
    shown = graded_run(open_store(tmp_path).run(run_id))
    assert grade(tf.field("status", "confirmed"), shown) is True
    assert shown.last_text == "answer 2"


PLUGINS = {
    "winners": ("WON = lambda graded: 'WON' in graded.text\n", {"winner": "winners:WON"}),
    "broken": ("raise RuntimeError('no licence')\n", {"broken": "broken:ask"}),
    "vague": ("NAME = 3\n", {"number": "vague:NAME"}),
    "one": ("def ask(graded): return True\n", {"twice": "one:ask"}),
    "other": ("def ask(graded): return False\n", {"twice": "other:ask"}),
}


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder of installed packages that give oracles, some of which cannot."""
    for package, (code, oracles) in PLUGINS.items():
        (tmp_path / f"{package}.py").write_text(code)
        told = tmp_path / f"{package}-1.5.dist-info"
        told.mkdir()
        (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
        lines = [f"{name} = {where}" for name, where in oracles.items()]
        (told / "entry_points.txt").write_text("\n".join(["[tracefork.oracles]", *lines]) + "\n")
    return tmp_path


def asked_in_another_process(folder: Path, name: str) -> str:
    """What `--oracle NAME` comes to in a process that has the packages: a grade, or the error."""
    code = (
        "from tracefork_backend.grading.graded import Graded\n"
        "from tracefork_backend.grading.kinds import from_flags\n"
        "from tracefork_backend.grading.oracle import grade, name_of\n"
        "from tracefork_otel import UsageError\n"
        f"try:\n    oracle = from_flags({{'oracle': {name!r}}})\n"
        "except UsageError as error:\n    print('refused:', error)\n"
        "else:\n    print(name_of(oracle), grade(oracle, Graded(run_id='a' * 32, output='WON it')))\n"
    )
    path = os.pathsep.join([str(folder), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("winner", r"winner True"),
        (
            "broken",
            r"the oracle broken \(broken:ask of broken 1\.5\) is left out: .*: no licence",
        ),
        ("number", r"the oracle number .* is left out: .*a int is no function"),
        ("twice", r"the oracle twice is left out: it is one:ask of one 1\.5 and other:ask of other 1\.5"),
        ("nobody", r"no oracle is called nobody: installed are broken, number, twice, winner"),
    ],
)
def test_an_installed_package_gives_an_oracle_by_name(installed: Path, name: str, said: str) -> None:
    """One that fails or clashes is named with its package and left out; the others serve as before."""
    assert re.search(said, asked_in_another_process(installed, name))


def test_flags_ask_for_one_oracle() -> None:
    """Values stand by the flags' names; what only says more of another oracle is refused."""
    oracle = from_flags({"success_re": "", "failure_re": None, "exit_code": False})
    assert oracle is not None
    assert name_of(oracle) == "regex success=//"
    assert from_flags({"field": None, "exit_code": False}) is None
    for given, says in (
        ({"exit_code": True, "field": "a=1"}, "one oracle grades a run: choose one of --success-re with"),
        ({"exit_code": True, "judge_model": "x"}, "belong to --judge"),
        ({"field": "status"}, "write it like status=confirmed"),
    ):
        with pytest.raises(UsageError, match=says):
            from_flags(given)
