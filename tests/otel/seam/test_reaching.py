"""Lines that give another `PYTHONPATH`: our entry is put before it where that is sure, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from recorded import launched, read_store, run_python

from tracefork_otel.seam.reaching import in_line, in_words

ENTRY = "/their own/boot"
PYTHON = f"{sys.executable} -c 'import os; print(os.environ.get(\"PYTHONPATH\"))'"

SURE = {
    "PYTHONPATH=src P": ["src"],
    "PYTHONPATH= P": [""],
    'PYTHONPATH="" P': [""],
    "A=1 PYTHONPATH='a b':lib P | cat": ["a b:lib"],
    "cd / && PYTHONPATH=$PWD/src P": ["//src"],
    "export PYTHONPATH=src; P; P": ["src", "src"],
    "PYTHONPATH=src; P": ["src"],
    "env PYTHONPATH=src P": ["src"],
    "(PYTHONPATH=a P); PYTHONPATH=b P": ["a", "b"],
    "x=$(PYTHONPATH=src P); echo $x": ["src"],
    "if true; then PYTHONPATH=src P; fi": ["src"],
    "for x in 1 2; do PYTHONPATH=src$x P; done": ["src1", "src2"],
}
"""Lines, and what each Python of them has as its path but for the entry."""


@pytest.mark.parametrize("line", SURE)
def test_what_a_line_starts_gets_the_entry_first(line: str) -> None:
    """Before what the line says, which holds else; an empty value does not become the present folder."""
    done = ["sh", "-c", in_line(_with_python(line), ENTRY)]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": "x"}
    printed = subprocess.run(done, capture_output=True, text=True, check=True, env=env).stdout.splitlines()
    assert printed == [f"{ENTRY}:{path}" if path else ENTRY for path in SURE[line]]


def _with_python(line: str) -> str:
    return " ".join(
        PYTHON + word[1:] if word == "P" or word[:2] in ("P;", "P)") else word for word in line.split(" ")
    )


@pytest.mark.parametrize(
    "line",
    [
        "PYTHONPATH=$PWD P",
        "PYTHONPATH=src:$PYTHONPATH P",
        "echo PYTHONPATH=src",
        "echo env PYTHONPATH=src",
        "echo 'a; PYTHONPATH=src'",
        'echo "$(echo "a; PYTHONPATH=src")"',
        "cat <<E\nPYTHONPATH=src\nE",
        "# it's\necho 'a; PYTHONPATH=src'",
        "echo $'it\\'s; PYTHONPATH=src'",
        "case x in\nPYTHONPATH=src) ;; esac",
        "x=(PYTHONPATH=src)",
        "set -x; PYTHONPATH=src P",
        "echo a\\; PYTHONPATH=src",
        "PYTHONPATH=src echo 'unfinished",
    ],
)
def test_a_line_of_which_it_is_not_sure_stays(line: str) -> None:
    """Text that only looks like an assignment, and what cannot be told from it."""
    assert in_line(line, ENTRY) == line


def test_words_are_told_from_arguments() -> None:
    """Of a program's words a launcher's assignments, and the line of a shell that does not print it."""
    assert in_words(["env", "PYTHONPATH=src", "python", "a.py"], "/e")[1] == "PYTHONPATH=/e:src"
    assert (
        in_words(["timeout", "5", "bash", "-ec", "PYTHONPATH=a python"], "/e")[-1] == "PYTHONPATH=/e:a python"
    )
    for words in (
        ["echo", "PYTHONPATH=src"],
        ["python", "a.py", "PYTHONPATH=src"],
        ["bash", "-xc", "PYTHONPATH=src python a.py"],
        ["sh", "a.sh", "PYTHONPATH=src python a.py"],
    ):
        assert in_words(words, "/e") == words


def test_errors_quote_what_the_agent_asked_for(tmp_path: Path) -> None:
    """What was put into the line is nowhere to be seen by who started it."""
    code = """
import subprocess
try: subprocess.run("PYTHONPATH=src false", shell=True, check=True)
except subprocess.CalledProcessError as error: assert error.cmd == "PYTHONPATH=src false", error.cmd
child = subprocess.Popen(args=["sh", "-c", "PYTHONPATH=src true"])
child.wait()
assert child.args == ["sh", "-c", "PYTHONPATH=src true"], child.args
"""
    run_python(code, store=tmp_path, **launched())  # type: ignore[arg-type]
    assert not read_store(tmp_path).notes
