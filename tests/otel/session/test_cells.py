"""In a notebook each cell that asks a model is a run of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.command import here
from recorded import run_python
from tracefork_backend.store import open_store

pytest.importorskip("IPython")

BOOK = """
import os
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
GET = f"httpx2.get('{os.environ['AGENT_URL']}/empty')"
CELLS = (
    "from tracefork_otel import TraceforkInstrumentor as T, agent\\nT().instrument(http_spans=False)",
    "import httpx2",
    f"{GET}\\n{GET}",
    "print('no call')",
    f"{GET}\\nraise ValueError('lost')",
    f"@agent\\ndef work(n): {GET}\\nwork(1)",
    f"import asyncio\\nasync def ask(): return {GET}\\nawait ask()",
)
for cell in CELLS:
    shell.run_cell(cell, store_history=True)
"""


def test_each_cell_that_asks_is_a_run(tmp_path: Path, raw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by its number, with its end and its error; a function says how it can be replayed."""
    monkeypatch.setenv("AGENT_URL", raw)
    run_python(BOOK, store=tmp_path / "store")
    with open_store(tmp_path / "store") as store:
        runs = list(reversed(store.runs()))
        found = [(run.name, run.steps, run.status) for run in runs]
        assert found == [
            ("cell 3", 2, "ok"),
            ("cell 5", 1, "error"),
            ("invoke_agent work", 1, "ok"),
            ("cell 7", 1, "ok"),
        ]
        assert runs[2].entrypoint == "__main__:work"
    refused = here("replay", runs[2].run_id, "--store", "store", "--trust", cwd=tmp_path)
    refused.refused("notebook", "agent=function")


SPANNED = (
    "from opentelemetry import trace\nfrom opentelemetry.sdk.trace import TracerProvider\n"
    "trace.set_tracer_provider(TracerProvider())\nSPAN = trace.get_tracer('mine').start_as_current_span",
    "with SPAN('plan'):\n {GET}\nwith SPAN('act'):\n {GET}",
    "with SPAN('look'):\n {GET}",
)


def test_spans_of_a_cell_are_its_run(tmp_path: Path, raw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several of one cell are one, and those of the next another."""
    monkeypatch.setenv("AGENT_URL", raw)
    cells = "".join(f"    {cell!r}.replace('{{GET}}', GET),\n" for cell in SPANNED)
    before, told = BOOK.split('    "import httpx2",\n')
    after = told[told.index(")\nfor cell") :]
    run_python(f'{before}    "import httpx2",\n{cells}{after}', store=tmp_path / "store")
    with open_store(tmp_path / "store") as store:
        assert [(run.name, run.steps) for run in reversed(store.runs())] == [("plan", 2), ("look", 1)]


def test_a_kernels_command_is_not_started_again(tmp_path: Path) -> None:
    """Another kernel would wait for cells until the time limit."""
    from stored import Recorder

    command = '["/usr/bin/python3", "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "kernel.json"]'
    recorder = Recorder(tmp_path)
    recorder.root("ab" * 16, "cell 2", attributes={"tracefork.command": command, "tracefork.cwd": "/"})
    recorder.exchange("ab" * 16)
    recorder.close()
    for words in (["replay", "last"], ["fork", "last@0", "--noop"]):
        here(*words, "--store", ".", "--trust", cwd=tmp_path).refused("notebook", "--agent pkg.mod:fn")
