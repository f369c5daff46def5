"""`ls`: which runs it lists, by each filter and by several, and its one word for each outcome."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from e2e.command import here
from stored import record

DAY = 86_400 * 10**9
MAY = 1_777_593_600 * 10**9
"""The first of May 2026, UTC."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of four runs, a day apart."""
    made = tmp_path_factory.mktemp("ls")
    store = made / ".tracefork"
    for day, (name, told) in enumerate(
        (
            ("booking", {"tracefork.command": json.dumps(["python", "agent.py", "--city", "Osaka"])}),
            ("won", {"tracefork.run.kind": "fork", "tracefork.run.outcome": True}),
            ("lost", {"tracefork.run.kind": "trial", "tracefork.run.outcome": False}),
            ("[red]plan%", {"tracefork.entrypoint": "trip:plan"}),
        )
    ):
        record(store, steps=1, name=name, attributes=told, at=MAY + day * DAY)
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ("", "[red]plan% won booking"),
        ("--all", "[red]plan% lost won booking"),
        ("osaka", "booking"),
        ("trip:PLAN", "[red]plan%"),
        ("[red]plan%", "[red]plan%"),
        ("%", "[red]plan%"),
        ("--kind trial", "lost"),
        ("--kind record", "[red]plan% booking"),
        ("--outcome success", "won"),
        ("--outcome failure --all", "lost"),
        ("--outcome failure", ""),
        ("--model SONNET", "[red]plan% won booking"),
        ("--model haiku", ""),
        ("--since 2026-05-02 --before 2026-05-04 --all", "lost won"),
        ("--since 2026-05-04T00:00:00+00:00", "[red]plan%"),
        ("--before 2026-05-02T02:00+02:00", "booking"),
        ("--status ok --kind record --limit 1", "[red]plan%"),
        ("--status killed", ""),
        ("--kind replay", ""),
    ],
)
def test_runs_are_chosen_by_each_filter(folder: Path, flags: str, names: str) -> None:
    """Text is data, of whichever case; filters are one condition together; none is said to be none."""
    listed = here("ls", *flags.split(), "--json", cwd=folder)
    assert [row["name"] for row in listed.rows] == names.split()
    shown = here("ls", *flags.split(), cwd=folder)
    assert shown.status == 0
    assert ("no run is like that" in shown.err) == (not names)
    assert ("; --all looks at" in shown.err) == (not names and "--kind" not in flags)


@pytest.mark.slow
def test_an_outcome_has_one_word(folder: Path) -> None:
    """Where nobody graded it, it is how the process ended."""
    shown = here("ls", "--all", cwd=folder).out
    assert re.findall(r"(won|lost|booking) .* (\w+)", shown) == [
        ("lost", "failure"),
        ("won", "success"),
        ("booking", "ok"),
    ]
    graded = here("ls", "--all", "--outcome", "not graded", "--json", cwd=folder)
    assert [row["name"] for row in graded.rows] == ["[red]plan%", "booking"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--kind", "forks"], "--kind forks: use record, replay, fork or trial"),
        (["--outcome", "true"], "--outcome true: use success, failure or not graded"),
        (["--since", "yesterday"], "--since yesterday: write a date"),
        (["--before", "2026-13-01"], "--before 2026-13-01: write a date"),
        (["--since", "0001-01-01T00:00+14:00"], "+14:00: in UTC this is no date between"),
        (["--before", "9999-12-31T23:00-02:00"], "-02:00: in UTC this is no date between"),
    ],
)
def test_a_filter_that_is_none_is_refused(folder: Path, flags: list[str], says: str) -> None:
    """With what it may be."""
    here("ls", *flags, cwd=folder).refused(says)


@pytest.mark.parametrize(
    ("verb", "choices"),
    [
        (["ls"], ["record|replay|fork|trial", "success|failure|not graded"]),
        (["fork"], ["live|recorded|offline", "exact|json", "429|500|529|timeout|disconnect"]),
        (["blame", "run"], ["auto|intervene|value|fixed", "fresh|recorded", "529|timeout|disconnect"]),
    ],
)
def test_choices_stand_in_the_help(folder: Path, verb: list[str], choices: list[str]) -> None:
    """Nobody has to make a mistake to see them."""
    help_text = here(*verb, "--help", cwd=folder, COLUMNS="300").out
    assert [one for one in choices if one not in help_text] == []


@pytest.mark.parametrize(("typed", "offered"), [("fork --ta", "--tail"), ("sh", "show")])
def test_a_shell_completes_verbs_and_their_flags(folder: Path, typed: str, offered: str) -> None:
    """By typer's own protocol, also of verbs that are loaded when they are asked for."""
    words = f"tracefork-otel {typed}"
    how = {
        "_TRACEFORK_OTEL_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    assert offered in here(cwd=folder, **how).out.split()


@pytest.mark.slow
def test_a_tape_file_is_no_run_of_the_store(folder: Path) -> None:
    """What reads runs alone says how a tape becomes one."""
    (folder / "run.tape").write_text("{}")
    for words in (["show", "run.tape"], ["blame", "run.tape", "--success-re", "x"]):
        here(*words, cwd=folder).refused("it is a file", "`tracefork-otel tape import run.tape`")
