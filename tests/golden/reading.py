"""What the installed version says of golden files, asked by public means only."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import tracefork_backend as tf

from tracefork_otel import Tape

VIEWS = (
    "runs",
    "exchanges",
    "bodies",
    "messages",
    "tools",
    "draws",
    "spans",
    "forks",
    "blame_experiments",
    "blame_arms",
    "blame_trials",
    "blame_effects",
    "blame_sets",
    "blame",
)
LONG = 80
"""A text or a JSON value longer than this is told by its digest."""
WHOLE = {"runs", "forks"}
"""Views whose rows are told one by one for every run; others for recorded runs, the rest by a digest."""
COMMAND = (
    "import sys; from importlib.metadata import entry_points; "
    "[main] = entry_points(group='console_scripts', name='tracefork-otel'); sys.argv[0] = 'tracefork-otel'; "
    "sys.exit(main.load()())"
)
"""Runs `tracefork-otel` with the interpreter that is asked to, wherever its function has moved."""
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
OUTSIDE = ("TRACEFORK_", "OTEL_", "ANTHROPIC_", "OPENAI_", "GEMINI_", "GOOGLE_", "TRACEPARENT", "PYTEST_")

Expected = dict[str, Any]


@dataclass(frozen=True)
class Typed:
    """What a command printed and how it ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """The last line of standard output as JSON."""
        return json.loads(self.out.splitlines()[-1])


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without settings from outside, where `python` is this interpreter."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OUTSIDE)}
    # Files of before, and of other machines, say what is started.
    return {**kept, "PATH": PATH, "TRACEFORK_TRUST": "1", **extra}


def tracefork(
    *arguments: str | Path,
    cwd: Path,
    python: str = sys.executable,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> Typed:
    """The command `tracefork-otel ARGUMENTS`, run in a folder to its end."""
    done = subprocess.run(
        [python, "-c", COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment() if env is None else dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Typed(done.returncode, done.stdout, done.stderr)


def tracefork_here(*arguments: str | Path, cwd: Path) -> Typed:
    """The same in this process, which saves the start of another."""
    [main] = entry_points(group="console_scripts", name="tracefork-otel")
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    status: object = 0
    sys.argv = ["tracefork-otel", *map(str, arguments)]
    try:
        with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main.load()()
    except SystemExit as left:
        status = left.code
    finally:
        sys.argv = before
    return Typed(status if isinstance(status, int) else 0, out.getvalue(), err.getvalue())


def told(value: object) -> Any:
    """A value of a view as JSON has it, a long one by its digest."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        return f"{len(value)} bytes, sha256 {_sha256(value)}"
    if isinstance(value, list | tuple):
        value = [told(item) for item in value]
    elif isinstance(value, dict):
        value = {str(name): told(item) for name, item in value.items()}
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) <= LONG:
        return value
    return f"{len(text)} characters, sha256 {_sha256(text.encode())}"


def view_of(store: tf.Store, view: str, columns: Sequence[str] | None = None) -> dict[str, Any]:
    """A view's columns (all, or those that are named) and its rows in an order of their own."""
    names = "*" if columns is None else ", ".join(f'"{name}"' for name in columns)
    relation = store.sql(f"select {names} from {view}")
    found = list(relation.columns)
    rows = sorted(([told(value) for value in row] for row in relation.fetchall()), key=json.dumps)
    key = next((name for name in ("run_id", "trace_id") if name in found), None)
    if key is None or view in WHOLE or view.startswith("blame"):
        return {"columns": found, "rows": rows}
    recorded = {run.run_id for run in store.runs("record")}
    others: dict[str, list[list[Any]]] = {}
    for row in rows:
        if row[found.index(key)] not in recorded:
            others.setdefault(row[found.index(key)], []).append(row)
    return {
        "columns": found,
        "rows": [row for row in rows if row[found.index(key)] in recorded],
        "others": {
            run: f"{len(rows)} rows, sha256 {_sha256(json.dumps(rows).encode())}"
            for run, rows in others.items()
        },
    }


def runs_of(store: tf.Store) -> dict[str, Any]:
    """Of each run: whether and why not it is whole, and the digests of its bodies step by step."""
    return {
        run.run_id: {
            "complete": run.complete,
            "incomplete_reasons": list(run.incomplete_reasons),
            "bodies": [
                [_sha256(one.request.body), _sha256(one.response.body if one.response else None)]
                for one in run.exchanges
            ],
        }
        for run in store.runs()
    }


def _sha256(body: bytes | None) -> str | None:
    """The first half of the digest, which is enough to tell bodies apart."""
    return None if body is None else hashlib.sha256(body).hexdigest()[:32]


def store_of(folder: Path, columns: Mapping[str, Sequence[str]] | None = None) -> Expected:
    """All that the views and the runs of a store say; with `columns`, of each view only those."""
    with tf.open_store(folder) as store:
        views = {view: view_of(store, view, None if columns is None else columns[view]) for view in VIEWS}
        return {"problems": list(store.problems), "views": views, "runs": runs_of(store)}


def tape_of(file: Path) -> Expected:
    """What a tape file holds."""
    tape = Tape.load(file)
    return {
        "run_id": tape.run_id,
        "name": tape.name,
        "steps": tape.steps,
        "digest": tape.digest,
        "draws": len(tape.draws),
        "tools": len(tape.tools),
        "command": None if tape.start.command is None else list(tape.start.command),
        "entrypoint": tape.start.entrypoint,
        "arguments": tape.start.arguments,
        "bodies": [
            [_sha256(one.request.body), _sha256(one.response.body if one.response else None)]
            for one in tape.exchanges
        ],
    }


def verified(store: Path, experiment_id: str) -> Any:
    """What `blame verify` says of an experiment."""
    return tracefork_here(
        "blame", "verify", experiment_id, "--store", store, "--json", cwd=store.parent
    ).json()


def shown(store: Path, experiment_id: str) -> Any:
    """What `blame show` says of an experiment, by its digest where it is long."""
    said = tracefork_here("blame", "show", experiment_id, "--store", store, "--json", cwd=store.parent).json()
    return {name: told(value) for name, value in said.items()}
