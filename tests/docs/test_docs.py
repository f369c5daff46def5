"""Every code block of the README and the docs runs, and console blocks print what they show.

A page is run from top to bottom in one empty folder that holds a copy of the examples. In a block marked `console`, lines
that begin with `$ ` are typed into a shell and the lines below are what it prints: compared after numbers, ids and spacing
are levelled, `…` alone on a line skipping any number of lines. `# exit 1` at a command's end is the status it must end with.
`python` blocks are run by this Python, `sql` blocks by `tracefork-otel sql`. Others (`text`, `toml`, `bash`) are read only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The agents of docs/frameworks.md want a model that is there, and packages that may not be: test_frameworks.py.
PAGES = [
    ROOT / "README.md",
    ROOT / "skills" / "tracefork-otel" / "SKILL.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "frameworks.md"),
]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Typed:
    """One command of a console block and what should follow it."""

    command: str
    status: int
    expected: list[str]


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each fenced block, in order."""
    return [(found[1], found[2]) for found in FENCE.finditer(page.read_text())]


def typed(block: str) -> list[Typed]:
    """The commands of a console block."""
    commands: list[Typed] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            command, _, comment = line[2:].partition("  # exit ")
            commands.append(Typed(command, int(comment or 0), []))
        elif commands:
            commands[-1].expected.append(line)
    return commands


def shape(line: str) -> str:
    """A line without what differs between two runs: numbers, hex ids, spacing, rules."""
    line = re.sub(r"\b[0-9a-f]{6,}\b", "#", line)
    line = re.sub(r"\d+", "#", line)
    return " ".join(line.replace("─", " ").replace("━", " ").split())


def missing(expected: list[str], printed: str) -> str | None:
    """The first expected line that was not printed in its turn, or None."""
    have = [shape(line) for line in printed.splitlines() if shape(line)]
    at, free = 0, True
    for line in expected:
        if line.strip() == "…":
            free = True
            continue
        wanted = shape(line)
        if not wanted:
            continue
        try:
            found = have.index(wanted, at)
        except ValueError:
            return line
        if not free and found != at:
            return line
        at, free = found + 1, False
    return None


def environment(folder: Path) -> dict[str, str]:
    """Our commands first on PATH, no settings and no keys from outside."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRACEFORK_", "OTEL_"))}
    for name in (
        "ANTHROPIC_API_KEY",
        "OPENAI_API_KEY",
        "ANTHROPIC_BASE_URL",
        "OPENAI_BASE_URL",
        "TRACEPARENT",
    ):
        kept.pop(name, None)
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}", "COLUMNS": "120"}


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The command's result, both streams together."""
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_runs(page: Path, tmp_path: Path) -> None:
    """Each block of the page does what the page says."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    for language, text in blocks(page):
        if language == "console":
            for step in typed(text):
                if step.command.startswith(("make ", "pip ", "git clone", "docker ")):
                    continue  # what CI does around this test
                done = run(["/bin/bash", "-c", step.command], tmp_path)
                assert done.returncode == step.status, f"$ {step.command}\n{done.stdout}"
                line = missing(step.expected, done.stdout)
                assert line is None, f"$ {step.command}\nnot printed: {line!r}\n{done.stdout}"
        elif language == "python":
            done = run([sys.executable, "-c", text], tmp_path)
            assert done.returncode == 0, done.stdout
        elif language == "sql":
            done = run([sys.executable, "-m", "tracefork_backend.cli", "sql", text], tmp_path)
            assert done.returncode == 0, f"{text}\n{done.stdout}"


def test_shapes_notice_a_change() -> None:
    """A line that was not printed, or printed out of turn, is found; numbers and ids may differ."""
    assert missing(["run 4bf92f13 recorded, 5 steps"], "run 0af7651916cd recorded, 12 steps\n") is None
    assert missing(["a", "b"], "a\nx\nb\n") == "b"
    assert missing(["a", "…", "b"], "a\nx\nb\n") is None
    assert missing(["PASS"], "FAIL\n") == "PASS"
