"""What an agent put out is graded whole, and its ends are kept with its run, secrets replaced."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import Desk, as_output, at_desk
from tracefork_backend.agents.output import OUTPUT_HEAD, OUTPUT_TAIL, Output
from tracefork_backend.grading.graded import Graded, graded_run
from tracefork_backend.grading.oracle import grade
from tracefork_backend.grading.regex import regex
from tracefork_backend.matrices.matrix import matrix
from tracefork_backend.rerun.edits import noop, text
from tracefork_backend.rerun.forking import fork
from tracefork_backend.rerun.records import last_line
from tracefork_backend.rerun.replaying import replay

WON = regex("VERDICT: WON", "VERDICT: LOST")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose model answers in capitals."""
    with at_desk(tmp_path, monkeypatch) as made:
        yield made


@pytest.mark.parametrize(
    "below",
    [
        "",
        "(For more information check: https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/500)",
        "For further information visit https://errors.pydantic.dev/2.12/v/missing\n",
        "https://docs.example/errors",
        "    +------------------------------------",
    ],
)
def test_a_crash_is_quoted_by_its_own_words(below: str) -> None:
    """Not by where more of it is told."""
    error = "httpx2.HTTPStatusError: Server error '500 Internal Server Error'"
    assert last_line(f"Traceback (most recent call last):\n  File ...\n{error}\n{below}\n") == error


def test_a_group_of_errors_is_quoted_by_its_last_one() -> None:
    """Without the boxes in which Python draws it."""
    group = (
        "  | ExceptionGroup: two (2 sub-exceptions)\n  +-+------ 1 ------\n    | KeyError: 'a'\n    +------\n"
    )
    assert last_line(group) == "KeyError: 'a'"


def test_an_output_is_kept_whole_up_to_a_limit() -> None:
    """Beyond it, and once it is closed, there are its beginning and end, and how much is missing."""
    size = OUTPUT_HEAD + OUTPUT_TAIL + 5
    for limit, missing in ((size, 0), (size - 1, 5), (0, 5)):
        output = Output(limit=limit)
        output.feed(b"a" * (size - 1))
        output.feed(b"z")
        shown, left_out = output.whole()
        assert (left_out, shown[-1]) == (missing, "z")
        assert (len(shown) == size) == (not missing)
        assert ("5 bytes left out" in shown) == bool(missing)
        output.close()
        assert output.whole() == (output.text(), 5)


@pytest.mark.slow
def test_the_middle_of_a_long_output_is_graded(desk: Desk) -> None:
    """Neither end says it; what is kept of it has no secrets, and says that it is cut."""
    run = desk.recorded("""
        said = say("a")
        print("x" * 100_000)
        print("VERDICT: WON, sk-ant-api03-" + "k" * 80 if said == "A" else "VERDICT: LOST")
        print("sk-ant-api03-" + "k" * 80, "y" * 100_000)
    """)
    seen: list[Graded] = []
    made = fork(run, at=0, edit=noop(), oracle=lambda shown: seen.append(shown) or WON(shown))
    assert (made.outcome, made.problem, len(made.stdout) < 140_000) == (True, None, True)
    assert (seen[0].left_out, len(seen[0].stdout)) == (0, len(str(seen[0].output)))
    assert fork(run, at=0, edit=text("B"), oracle=WON).outcome is False
    kept = graded_run(made.run)
    assert (len(str(kept.output)) <= 16 * 1024, kept.unseen) == (True, False)
    assert kept.left_out > 180_000
    assert "k" * 80 not in "".join(map(str, desk.store.rows("SELECT attributes FROM spans")))
    assert grade(WON, made.graded()) is None


@pytest.mark.slow
def test_the_whole_result_of_a_function_is_graded(desk: Desk) -> None:
    """Of a text and of what a generator yields; the store has its beginning and end."""
    run = desk.called(
        """
        @tracefork_otel.agent
        def answer(word, *, more):
            said = say(word)
            return "x" * 100_000 + f"VERDICT: {'WON' if said == 'A' else 'LOST'}" + "y" * 100_000

        @tracefork_otel.agent
        def answers(word, *, more):
            yield "x" * 100_000
            yield f"VERDICT: {'WON' if say(word) == 'A' else 'LOST'}"
            yield from ["y" * 50_000] * 2
        """,
        "answer('a', more=1)",
    )
    assert (graded_run(run).left_out > 130_000, grade(WON, graded_run(run))) == (True, None)
    result = replay(run, oracle=WON)
    assert (result.passed, result.outcome, result.left_out > 130_000) == (True, True, True)
    assert len(str(result.result)) <= 64 * 1024
    assert fork(run, at=0, edit=text("B"), oracle=WON).outcome is False
    assert graded_run(desk.run()).output is not None
    assert replay(run, agent="agent:answers", oracle=WON).outcome is True


@pytest.mark.slow
def test_a_recorded_run_is_compared_by_what_its_replay_prints(desk: Desk) -> None:
    """Nobody kept what it printed to a terminal; of what has no outcome nobody says that it had one."""
    with open(os.devnull, "wb") as nobody, as_output(nobody.fileno()):
        run = desk.recorded("print('VERDICT:', 'WON' if say('a') == 'A' else 'LOST', say('b'))")
    made = matrix([(run, 0)], [text("B")], times=2, oracle=WON)
    (cell,) = made.cells
    assert (cell.parent_outcome, cell.passed, cell.failed) == (True, 0, 2)
    assert desk.asked() == ["b", "b"]
    again = matrix([(cell.forks[0].run, 0)], [text("A")], times=2, oracle=WON)
    assert (again.cells[0].parent_outcome, again.cells[0].passed) == (False, 2)
    desk.write("print('VERDICT:', say('other'))")
    assert matrix([(run, 0)], [text("B")], times=2, oracle=WON).cells[0].parent_outcome is None
