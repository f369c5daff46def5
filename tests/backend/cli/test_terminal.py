"""Recorded text is data: no markup, nothing that a terminal obeys, whatever standard output can encode."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from rich.text import Text
from stored import Recorder, answered, asked, trace
from tracefork_backend import cli
from tracefork_backend.cli import fork_view, output, searching, validate
from tracefork_backend.cli.terminal import Guarded, guarded
from tracefork_backend.spelling import visible

TEXTS = (
    "[/INST] done",
    "cwd [/home/me]$ ls",
    "- [x] milk, - [ ] eggs",
    "def f(a: list[int]) -> dict[str, int]",
    "see [docs](http://example.com) :smile: [bold]word[/bold]",
    "window \x1b]0;OWNED\x07 clear \x1b[2J colour \x1b[31m C1 \x9b31m erased \rover \x00",
    "turned \u202egnp.exe\u202c, \u2066x\u2069",
    "half \ud83d, caf\u00e9 \u2192",
)
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
COMMANDS = (
    ["ls"],
    ["show", "last"],
    *(["show", f"last@{step}"] for step in range(len(TEXTS))),
    ["diff", "last", "last"],
    ["sql", "select content from messages where role = 'assistant'"],
    ["sql", "select *, 1 as a, 2 as b, 3 as c from messages where role = 'assistant'"],
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of one run, in which a model answered each of the texts; the run's name is all of them."""
    folder = tmp_path_factory.mktemp("store")
    recorder, run_id = Recorder(folder), trace()
    recorder.root(run_id, " ".join(TEXTS))
    for text in TEXTS:
        answer = json.loads(answered("x")) | {"content": [{"type": "text", "text": text}]}
        recorder.exchange(run_id, response=json.dumps(answer).encode())
    recorder.close()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_it_as_it_is(
    command: list[str], store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No command fails or leaves a bracket out, and nothing that a terminal obeys comes through."""
    assert cli._run([*command, "--store", str(store)]) == 0
    shown = capsys.readouterr()
    assert not OBEYED.search((shown.out + shown.err).replace("\r\n", "\n"))
    if command[0] == "sql":
        words = " ".join(TEXTS).split()
        odd = ("\ud83d", "\x00")  # as U+FFFD
        assert all(visible(word) in shown.out for word in words if word.strip(",") not in odd)


def test_what_a_machine_reads_is_the_text_itself(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` gives each text back, with JSON's own escapes for what a terminal obeys."""
    query = "select content from messages where role = 'assistant' order by step"
    assert cli._run(["sql", "--json", query, "--store", str(store)]) == 0
    out = capsys.readouterr().out
    assert not OBEYED.search(out.replace("\n", ""))
    said = [json.loads(line)["content"].replace("\x00", "\ufffd") for line in out.splitlines()]
    assert said == [text.replace("\ud83d", "\ufffd").replace("\x00", "\ufffd") for text in TEXTS]


@pytest.mark.parametrize("command", [["--help"], COMMANDS[1], COMMANDS[9], COMMANDS[-2]], ids=" ".join)
def test_any_encoding_of_standard_output_will_do(
    command: list[str], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What standard output cannot encode is an escape, and no error."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert cli._run([*command, *([] if command == ["--help"] else ["--store", str(store)])]) == 0
    sys.stdout.flush()
    assert raw.getvalue().decode("ascii")


def test_lines_and_tabs_are_no_escapes() -> None:
    """Text in lines stays so; a lone carriage return, which writes over its line, does not."""
    assert visible("a\tb\r\nc\n") == "a\tb\r\nc\n"
    assert visible("a\rb\x85\x7f\u200f") == r"a\rb\x85\x7f\u200f"
    out = io.StringIO()
    Guarded(out).writelines(["\x1b[2J", "x"])
    assert out.getvalue() == r"\x1b[2Jx"


def test_a_picture_is_shown_by_its_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`show` of a step cuts base64 and nothing else."""
    recorder, run_id = Recorder(tmp_path), trace()
    recorder.root(run_id)
    prose = "long words " * 500
    asked = {"messages": [{"role": "user", "content": [{"data": "iVBORw0KGgo" * 900}, {"text": prose}]}]}
    recorder.exchange(run_id, json.dumps({"model": "m", **asked}).encode())
    recorder.close()
    assert cli._run(["show", "last@0", "--store", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "… (9900 base64 characters)" in out
    assert prose in out
    assert len(out) < 8000


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        """Whether it is one."""
        return True


SHOWN = {
    "blame and repair": lambda: searching.progress(str),
    "validate": validate._progress,
    "fork": lambda: fork_view.progress(single=False),
}


@pytest.mark.parametrize("shown", SHOWN.values(), ids=SHOWN)
def test_nothing_goes_round_the_guard_while_something_grows(
    shown: Callable[[], AbstractContextManager[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is printed while an experiment or a matrix is shown is as visible as at any other time."""
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with guarded(), shown() as on_progress:
        assert on_progress
        print("\x1b]0;OWNED\x07 \x9b31m", file=sys.stderr)
        print("\x1b[8mhidden")
    assert r"\x1b]0;OWNED\x07 \x9b31m" in err.getvalue()
    assert "\x1b]0;OWNED" not in err.getvalue()
    assert out.getvalue() == "\\x1b[8mhidden\n"


def test_in_a_log_a_long_work_tells_by_a_line_at_a_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """How far it is, without pictures and what a terminal would obey; before its minute is over, nothing."""
    with validate._progress() as on_progress:
        on_progress("simulated cells", 1, 9)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(output, "LOG_EVERY_S", 0.0)
    with validate._progress() as on_progress:
        on_progress("simulated cells", 2, 9)
        on_progress("real forks", 1, 4)
    with output.growing("") as tell:
        tell("3 \x1b[8mforks\n  step 1: moves", Text("a picture"))
    assert capsys.readouterr().err.splitlines() == [
        "simulated cells 2/9",
        "simulated cells 2/9 · real forks 1/4",
        r"3 \x1b[8mforks",
    ]


@pytest.mark.parametrize(
    "command",
    ["ls", "show {run}", "show {other}", "show 7777777", "doctor", "diff {run} {other}", "replay {run}"],
)
def test_a_name_of_any_length_takes_no_more_than_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Of a run, service, model and tool; JSON and SQL have all of it."""
    name, recorder = "N" * 100_000, Recorder(tmp_path)
    runs = {"run": "ab" * 16, "other": "cd" * 16}
    for run_id in runs.values():
        recorder.root(run_id, name=name, service=name)
        recorder.exchange(
            run_id, asked("hi", model=name), answered("ho").replace(b"claude-sonnet-4-5", b"M" * 9999)
        )
    recorder.close()
    cli._run([*command.format(**runs).split(), "--store", str(tmp_path)])
    shown = capsys.readouterr()
    assert shown.out + shown.err
    assert len(shown.out) + len(shown.err) < 5_000
