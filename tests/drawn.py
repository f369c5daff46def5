"""What tests of draws share: a module recorded in a process of its own, and served again, on any Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import wrapt
from recorded import REPOSITORY

HARNESS = """
import json, os, sys

mode, path = sys.argv[1:3]
late = "late" in sys.argv
if late:
    import workload

from tracefork_otel.draws.deck import Deck
from tracefork_otel.draws.sources import Sources
from tracefork_otel.tape.reads import Draw

deck = Deck("agent", include=("site_like",) if "include" in sys.argv else ())
if mode == "serve":
    draws = [Draw(**one) for one in json.load(open(path))]
    deck.serve(lambda: draws, lambda: "LIVE" in os.environ)
sources = Sources(deck)
sources.install()
if late:
    sources.rebind()
import workload

print(workload.main())
sources.restore()
print(workload.check_real(), file=sys.stderr)
taken = deck.taken() or {"values": [], "streams": [], "notes": []}
if mode == "record":
    found = [
        dict(process="agent#0", lane=lane, source=source, site=site, line=line, value=value)
        for number, served, value in taken["values"]
        for lane, source, site, line in [taken["streams"][number]]
    ]
    json.dump(found, open(path, "w"))
print("NOTES", json.dumps(taken["notes"]), sum(served for _, served, _ in taken["values"]))
"""

FIXED = {"PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": "7", "PYTHONDONTWRITEBYTECODE": "1"}
HERE = "{}.{}".format(*sys.version_info)


def python(version: str) -> str:
    """The interpreter of that version; the test is skipped where there is none."""
    if version == HERE:
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = [
        os.environ.get(f"TRACEFORK_PYTHON_{version.replace('.', '_')}"),
        shutil.which(f"python{version}"),
        *(str(one) for one in sorted(pyenv.glob(f"{version}.*/bin/python"))),
    ]
    for one in filter(None, found):  # a shim of pyenv's may stand for none
        if subprocess.run([one, "-c", "0"], capture_output=True, check=False).returncode == 0:
            return one
    pytest.skip(f"no Python {version} here")


def run(
    folder: Path, *arguments: str, version: str = "{}.{}".format(*sys.version_info)
) -> tuple[str, list[list[str]], int]:
    """What the workload printed, what was noted, and how many values were served."""
    (folder / "harness.py").write_text(HARNESS)
    if version != HERE and not (folder / "wrapt").exists():
        # Other interpreters have none; its part in plain Python serves them all.
        (folder / "wrapt").symlink_to(Path(wrapt.__file__).parent)
    done = subprocess.run(
        [python(version), "harness.py", *arguments],
        cwd=folder,
        env={**os.environ, **FIXED},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "True"
    shown, _, last = done.stdout.strip().rpartition("\nNOTES ")
    notes, _, served = last.rpartition(" ")
    return shown, json.loads(notes), int(served)
