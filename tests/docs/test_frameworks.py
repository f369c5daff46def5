"""Each agent of docs/frameworks.md runs as it stands there, is recorded by its one line, and replays exactly.

A Python block whose packages are installed runs against the model server; else, and in other languages, its
syntax is checked, by the language's own tool where that is installed.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docs.test_docs import ROOT, blocks, environment
from frameworks.bench import clerk
from tracefork_backend.simulate import ModelServer
from tracefork_backend.simulate.model import Call, Reply

pytestmark = pytest.mark.slow

BLOCKS = list(enumerate(blocks(ROOT / "docs" / "frameworks.md")))
PYTHON = [
    pytest.param(text, id=f"block {number}") for number, (language, text) in BLOCKS if language == "python"
]
OTHERS = [
    pytest.param(language, text, id=f"block {number} {language}")
    for number, (language, text) in BLOCKS
    if language not in ("python", "text")
]
CHECKS = {
    "bash": ("agent.sh", ["bash", "-n"]),
    "sh": ("agent.sh", ["sh", "-n"]),
    "js": ("agent.mjs", ["node", "--check"]),
    "go": ("agent.go", ["gofmt", "-e", "-d"]),
}
"""For each language the file that a block goes into, and what prints or fails where it is not well-formed."""


def model(call: Call) -> Reply:
    """Uses the tool if there is one, else says hello."""
    return clerk(call) if "population" in call.tools else Reply(text="Hello.")


def packages(text: str) -> set[str]:
    """The modules that the block imports, by the names under which they are found."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(f"{node.module}.{node.names[0].name}" if node.module == "google" else str(node.module))
    return found


def present(module: str) -> bool:
    """Whether the module can be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def run(folder: Path, server: ModelServer, *command: str) -> subprocess.CompletedProcess[str]:
    """The command's result, with the model server as every provider."""
    keys = dict.fromkeys(("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GOOGLE_API_KEY"), "k")
    urls = {
        "ANTHROPIC_BASE_URL": server.url,
        "OPENAI_BASE_URL": server.openai_url,
        "GOOGLE_GEMINI_BASE_URL": server.url,
    }
    return subprocess.run(
        command,
        cwd=folder,
        env={**environment(folder), **keys, **urls},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("text", PYTHON)
def test_python(text: str, tmp_path: Path) -> None:
    """The agent gives its answer, its run is whole, and replays exactly with no request."""
    missing = [name for name in packages(text) if not present(name)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: only the syntax was checked")
    (tmp_path / "agent.py").write_text(text)
    cli = (sys.executable, "-m", "tracefork_backend.cli")
    with ModelServer(model, seed=3) as server:
        done = run(tmp_path, server, sys.executable, "agent.py")
        assert done.returncode == 0, done.stderr
        asked = len(server.requests)
        if "print(" not in text:
            assert asked == 0
            return
        tool = "population" in text
        assert done.stdout.strip() == ("10092000 and 1763000" if tool else "Hello.")
        assert asked == (3 if tool else 1)
        (row,) = [
            json.loads(line) for line in run(tmp_path, server, *cli, "ls", "--json").stdout.splitlines()
        ]
        assert (row["steps"], row["complete"], row["status"]) == (asked, True, "ok")
        again = run(tmp_path, server, *cli, "replay", "last")
        assert again.returncode == 0, again.stdout + again.stderr
        assert len(server.requests) == asked


@pytest.mark.parametrize(("language", "text"), OTHERS)
def test_other_language(language: str, text: str, tmp_path: Path) -> None:
    """The language's own tool finds nothing wrong with the block."""
    name, command = CHECKS[language]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    (tmp_path / name).write_text(text)
    done = subprocess.run(
        [*command, name], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr + done.stdout


def test_curl_as_it_stands(tmp_path: Path) -> None:
    """The page's `curl` under its `run --proxy -- sh ask.sh` is recorded and replays exactly."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (text,) = [text for _, (language, text) in BLOCKS if language == "sh"]
    (tmp_path / "ask.sh").write_text(text)
    cli = (sys.executable, "-m", "tracefork_backend.cli")
    with ModelServer(model, seed=3) as server:
        done = run(tmp_path, server, *cli, "run", "--proxy", "--", "sh", "ask.sh")
        assert done.returncode == 0, done.stderr
        assert "Hello." in done.stdout
        assert "1 step" in done.stderr
    again = run(tmp_path, server, *cli, "replay", "last")
    assert again.returncode == 0, again.stdout + again.stderr


@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")
def test_go_as_it_stands(tmp_path: Path) -> None:
    """The page's Go agent under `run --proxy` is recorded and replays exactly."""
    text = next(text for _, (language, text) in BLOCKS if language == "go")
    (tmp_path / "main.go").write_text(text)
    (tmp_path / "go.mod").write_text("module agent\n\ngo 1.20\n")
    built = subprocess.run(
        ["go", "build", "-o", "agent", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    cli = (sys.executable, "-m", "tracefork_backend.cli")
    with ModelServer(model, seed=3) as server:
        done = run(tmp_path, server, *cli, "run", "--proxy", "--", "./agent")
        assert done.returncode == 0, done.stderr
        assert "Hello." in done.stdout
    again = run(tmp_path, server, *cli, "replay", "last")
    assert again.returncode == 0, again.stdout + again.stderr
