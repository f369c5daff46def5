"""Makes a folder of golden files with the version that is installed: `python tests/golden/make.py OUT`.

Agents run in a folder whose name is the same on every machine, with an environment of nothing but what they
need, so that no file holds a path or a setting of the machine it was made on.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tracefork_backend
from reading import COMMAND, Typed, shown, store_of, tape_of, tracefork, verified
from tracefork_backend.simulate import ModelServer

import tracefork_otel

HERE = Path(__file__).parent
ROOT = Path("/tmp/tracefork-golden")
"""Where everything is recorded; gone afterwards, so that a replay runs in the folder that it is called in."""
AGENTS = ROOT / "agents"
PYTHON = ROOT / "venv" / "bin" / "python"
TAPES = ROOT / "tapes"
LIBRARIES = ROOT / "lib"
"""Where both packages are found, so that what they say of their own place names no folder of this machine."""
ENVIRONMENT = {
    "PATH": f"{PYTHON.parent}:/usr/bin:/bin",
    "PYTHONPATH": str(LIBRARIES),
    "HOME": str(ROOT / "home"),
    "LANG": "C.UTF-8",
}
SEALED, KILLED = "sealed", "killed"
MANY = 4
"""Steps of a run that only two changes at once turn into a failure."""
MAILED = "Booked under ada@example.com."

FORKS: tuple[tuple[str, ...], ...] = (
    ("trip@1", "--text", "ERROR: I gave up."),
    ("trip@1", "--tool-input", '{"flight": "NH176", "date": "2026-11-03"}'),
    ("trip@2", "--response", "answer.json"),
    (
        "trip@1",
        "--set",
        "max_tokens=128",
        "--system",
        "Double-check the date.",
        "--model",
        "claude-sonnet-4-5",
    ),
    ("trip@1", "--tool-result", 'check_seats={"flight": "JL60", "date": "2026-11-03", "seats": 0}'),
    ("trip@1", "--fault", "429"),
    ("trip@1", "--fault", "500"),
    ("trip@1", "--fault", "529"),
    ("trip@1", "--fault", "timeout"),
    ("trip@1", "--fault", "disconnect"),
    ("trip@1", "--resample"),
    ("trip@1", "--noop"),
    ("trip@1", "--noop", "--tail", "recorded"),
    ("trip@1", "--noop", "--tail", "offline"),
    ("gemini@0", "--model", "gemini-2.5-pro"),
    ("chat@0", "--tool-result", 'weather={"celsius": 30}'),
    ("responses@0", "--text", "It is warm."),
)
"""Forks of recorded runs by the names they have here: one of every kind of intervention, fault and tail."""


def command(*words: str | Path, store: str = SEALED, may_fail: bool = False) -> Typed:
    """The command `tracefork-otel WORDS` in the agents' folder."""
    done = tracefork(
        *words, cwd=AGENTS, python=str(PYTHON), env={**ENVIRONMENT, "TRACEFORK_STORE": str(ROOT / store)}
    )
    if done.status and not may_fail:
        raise SystemExit(f"tracefork-otel {' '.join(map(str, words))}: {done.status}\n{done.out}{done.err}")
    return done


def last_run(store: str = SEALED) -> str:
    """The id of the newest run."""
    query = "select run_id from runs order by started_at desc limit 1"
    return command("sql", query, "--json", store=store).json()["run_id"]


def recorded(*words: str, store: str = SEALED) -> str:
    """The id of the run that `run WORDS` made."""
    command("run", *words, store=store)
    return last_run(store)


@contextmanager
def model(errs: float) -> Iterator[ModelServer]:
    """The agents' model, on the port that their file names."""
    sys.path.insert(0, str(HERE / "agents"))
    from model import Model

    with ModelServer(Model(errs), seed=7) as server:
        (AGENTS / "model.port").write_text(f"{server.port}\n")
        yield server


def record_runs() -> dict[str, str]:
    """The ids of runs of every kind, by name."""
    runs: dict[str, str] = {}
    for form in ("anthropic", "chat", "responses", "gemini", "odd"):
        runs[form] = recorded("--", "python", "forms.py", form)
    runs["drawn"] = recorded("--draws", "--", "python", "drawn.py")
    runs["redacted"] = recorded("--redact", "redact.toml", "--", "python", "trip.py", "Osaka")
    runs["trip"] = recorded("--", "python", "trip.py", "Osaka")
    runs["function"] = recorded_by_itself(2)
    return runs


def recorded_by_itself(days: int, store: str = SEALED) -> str:
    """The id of a run of the function agent that no command of ours started."""
    env = {**ENVIRONMENT, "TRACEFORK_STORE": str(ROOT / store)}
    subprocess.run([str(PYTHON), "function.py", str(days)], cwd=AGENTS, env=env, check=True)
    return last_run(store)


def compacted() -> None:
    """What the store holds so far is one segment, and the files that it was made of are gone."""
    before = set((ROOT / SEALED / "segments").iterdir())
    command("doctor", "--compact", may_fail=True)  # it takes the experiments' folder for a foreign file
    for file in before:
        file.unlink()


def fork_runs(runs: dict[str, str]) -> None:
    """A fork and a replay are in the store, and an intervention of each kind is in its folder."""
    (AGENTS / "answer.json").write_text(
        json.dumps({"type": "message", "role": "assistant", "content": [{"type": "text", "text": MAILED}]})
    )
    aside = ROOT / "aside"
    shutil.copytree(ROOT / SEALED, aside)
    for ref, *how in FORKS:
        name, _, step = ref.partition("@")
        command("fork", f"{runs[name]}@{step}", *how, store=aside.name, may_fail=True)
    blame_groups(aside.name)
    shutil.rmtree(aside)
    (AGENTS / "answer.json").unlink()
    how = ("--tool-input", '{"flight": "NH176", "date": "2026-11-03"}', "--success-re", "BOOKED")
    command("fork", f"{runs['trip']}@1", *how)
    command("replay", runs["trip"])
    command("replay", runs["function"])
    runs["function-replay"] = last_run()
    command("fork", f"{runs['function']}@1", "--text", "Nothing to see.")
    runs["function-fork"] = last_run()


def blame_groups(store: str) -> None:
    """Interventions that change several steps at once are kept."""
    run = recorded_by_itself(MANY, store)
    how = ("--mode", "intervene", "--ablate", "Nothing.", "--success-re", "Day [12] ", "--max-trials", "20")
    command("blame", run, *how, "--jobs", "1", store=store)


def blame_runs(runs: dict[str, str]) -> dict[str, str]:
    """The ids of a finished experiment and of one that its budget ended."""
    asked = (
        "blame",
        runs["trip"],
        "--success-re",
        "BOOKED",
        "--failure-re",
        "ERROR",
        "--jobs",
        "1",
        "--json",
    )
    experiments: dict[str, str] = {}
    for name, how in {
        "finished": ("--mode", "fixed", "--k", "2"),
        "interrupted": ("--mode", "value", "--budget", "0.004", "--max-trials", "40"),
    }.items():
        command(*asked, *how)
        if name == "finished":
            compacted()
        query = "select experiment_id from blame_experiments order by created_at desc limit 1"
        experiments[name] = command("sql", query, "--json").json()["experiment_id"]
    return experiments


def kill_a_run(server: ModelServer) -> None:
    """A store holds nothing but the WALs of a process that was killed in its second exchange."""
    before = len(server.requests)
    env = {**ENVIRONMENT, "TRACEFORK_STORE": str(ROOT / KILLED)}
    process = subprocess.Popen(
        [str(PYTHON), "-c", COMMAND, "run", "--", "python", "killed.py"],
        cwd=AGENTS,
        env=env,
        start_new_session=True,
    )
    while len(server.requests) < before + 2:
        if process.poll() is not None:
            raise SystemExit("the agent that was to be killed ended by itself")
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def export_tapes(runs: dict[str, str]) -> None:
    """A tape file for each run that was recorded."""
    for name, run in runs.items():
        command("tape", "export", run, "-o", TAPES / f"{name}.tape.jsonl")


def write_expected(out: Path, experiments: dict[str, str]) -> None:
    """`expected.json` says what this version reads in the files, one row a line."""
    scratch = ROOT / "reading"
    shutil.copytree(out, scratch)
    expected: dict[str, Any] = {
        "stores": {name: store_of(scratch / name) for name in (SEALED, KILLED)},
        "tapes": {file.name: tape_of(file) for file in sorted((scratch / "tapes").iterdir())},
        "experiments": {
            experiment: {
                "name": name,
                "verify": verified(scratch / SEALED, experiment),
                "show": shown(scratch / SEALED, experiment),
            }
            for name, experiment in experiments.items()
        },
    }
    (out / "expected.json").write_text(_laid_out(expected) + "\n")


def _laid_out(value: Any, depth: int = 0) -> str:
    """JSON with a line for each part down to the rows of a view."""
    if depth == 5 or not isinstance(value, dict | list) or not value or depth < 0:
        return json.dumps(value, ensure_ascii=False)
    indent = " " * depth
    if isinstance(value, list):
        parts = [json.dumps(item, ensure_ascii=False) for item in value]
        brackets = "[]"
    else:
        parts = [f"{json.dumps(name)}: {_laid_out(item, depth + 1)}" for name, item in value.items()]
        brackets = "{}"
    return f"{brackets[0]}\n{indent} " + f",\n{indent} ".join(parts) + f"\n{indent}{brackets[1]}"


def main(out: Path) -> None:
    """The folder holds what the installed version writes, and what it reads in that."""
    shutil.rmtree(ROOT, ignore_errors=True)
    try:
        for folder in (ROOT, ROOT / "home", LIBRARIES, TAPES):
            folder.mkdir()
        (ROOT / "venv").symlink_to(Path(sys.prefix))
        for package in (tracefork_otel, tracefork_backend):
            (LIBRARIES / package.__name__).symlink_to(Path(str(package.__file__)).parent)
        shutil.copytree(HERE / "agents", AGENTS, ignore=shutil.ignore_patterns("__pycache__"))
        with model(errs=1.0):
            runs = record_runs()
        with model(errs=0.5) as server:
            (AGENTS / "interventions").mkdir()
            fork_runs(runs)
            experiments = blame_runs(runs)
            (AGENTS / "interventions").rename(ROOT / "interventions")
            kill_a_run(server)
        export_tapes(runs)
        out.mkdir(parents=True)
        unwanted = shutil.ignore_patterns("__pycache__", "model.port")
        for name in ("agents", "interventions", "tapes", SEALED, KILLED):
            shutil.copytree(ROOT / name, out / name, ignore=unwanted)
        write_expected(out, experiments)
    finally:
        shutil.rmtree(ROOT, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
