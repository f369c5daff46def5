"""What a CI shows of `verify` and of gates: a table on the job's page, marks at lines, a JUnit file."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tracefork_otel.errors import UsageError

from .output import say

_SITE = re.compile(r"(?P<file>.+):(?P<line>\d+) ")
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CELL = 300
"""Characters of a finding in a cell of the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One thing that was checked: a tape, a run, a gate."""

    name: str
    result: str
    """`PASS`, `FAIL`, `ERROR` (it could not be checked) or `NOT SHOWN`."""
    finding: str = ""
    """The first thing that is wrong, in a line."""
    lines: tuple[str, ...] = ()
    """All that was found."""
    site: str | None = None
    """Where in the agent's code it went wrong, as exchanges have it."""
    file: str | None = None
    """The tape's file, which is marked where no line is known."""
    seconds: float = 0.0


def tell_ci(title: str, checked: Sequence[Checked]) -> None:
    """Write the job's table and mark lines, where the environment says that this runs at GitHub's.

    A table that cannot be written is said, and changes no exit status.
    """
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(path).open("a", encoding="utf-8", errors="replace") as file:
                file.write(table_of(title, checked))
        except (OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or error
            say(f"tracefork-otel: the summary was not written: GITHUB_STEP_SUMMARY={path}: {said}")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in marks_of(checked):
            print(line, file=sys.stderr)


def table_of(title: str, checked: Iterable[Checked]) -> str:
    """Return a table in Markdown, whatever stands in the texts."""
    rows = [
        f"| {_cell(one.name)} | {one.result} | {_cell(one.finding)} | {_cell(one.site or '')} |"
        for one in checked
    ]
    return "\n".join(
        [
            f"### {title}",
            "",
            "| what | result | first finding | asked at |",
            "|---|---|---|---|",
            *rows,
            "",
            "",
        ]
    )


def marks_of(checked: Iterable[Checked]) -> list[str]:
    """Return a line of GitHub's for each that did not pass, at the agent's line or else at the tape."""
    marks: list[str] = []
    for one in checked:
        if one.result == "PASS":
            continue
        place = _SITE.match(one.site or "")
        where = f" file={_property(one.file)}," if one.file else " "
        if place is not None and not place["file"].startswith(("~", "/", "<")):
            where = f" file={_property(place['file'])},line={place['line']},"
        title = _property(f"tracefork {one.result}: {one.name}")
        marks.append(f"::error{where}title={title}::{_data(one.finding or one.result)}")
    return marks


def write_junit(path: Path, checked: Sequence[Checked]) -> None:
    """Write the file that CIs read test results from; UsageError naming it where that is not possible."""
    counts = {"failures": ("FAIL", "NOT SHOWN"), "errors": ("ERROR",)}
    suite = ElementTree.Element("testsuite", name="tracefork-otel verify", tests=str(len(checked)))
    for name, results in counts.items():
        suite.set(name, str(sum(one.result in results for one in checked)))
    suite.set("time", f"{sum(one.seconds for one in checked):.3f}")
    for one in checked:
        case = ElementTree.SubElement(
            suite, "testcase", classname="tracefork", name=_xml(one.name), time=f"{one.seconds:.3f}"
        )
        place = _SITE.match(one.site or "")
        if place is not None:
            case.set("file", _xml(place["file"]))
            case.set("line", place["line"])
        if one.result != "PASS":
            kind = "error" if one.result == "ERROR" else "failure"
            told = ElementTree.SubElement(case, kind, message=_xml(one.finding))
            told.text = _xml("\n".join(one.lines))
    try:
        with path.open("wb") as file:
            ElementTree.ElementTree(suite).write(file, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise UsageError(f"--junit {path}: {error.strerror or error}") from error


def _cell(text: str) -> str:
    line = " ".join(text.split())
    cut = line if len(line) <= _CELL else f"{line[:_CELL]}…"
    # A model's words stand in it: no link, picture or tag of theirs may come to life.
    return re.sub(r"([\\`*_{}\[\]<>|~#!@&])", r"\\\1", cut)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _xml(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
