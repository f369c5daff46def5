"""A budget ends an agent in the middle of its run, and says so, whichever command started it."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.command import asking, here
from tracefork_backend.simulate import Call, ModelServer, Reply, Usage

# Each command starts agents of its own: .ci/run has them, `make test` has not.
pytestmark = pytest.mark.slow

AGENT = """
    import os, signal, subprocess, sys, httpx2
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    helper = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()", os.getcwd()], stdin=-1)
    client, turns = httpx2.Client(timeout=60), [{"role": "user", "content": "begin"}]
    for turn in range(6):
        asked = {"model": "claude-sonnet-4-5", "max_tokens": 500, "messages": turns}
        answer = client.post(os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages", json=asked).raise_for_status()
        said = {"role": "assistant", "content": answer.json()["content"][0]["text"]}
        turns = [*turns, said, {"role": "user", "content": f"turn {turn}"}]
    helper.communicate()
    print("BOOKED")
"""
CALL = 0.045
"""What a call of a fork costs, ten times a recorded one."""


class Model:
    """A model whose answers grow."""

    def __init__(self) -> None:
        self.scale = 1
        self.paid = 0.0
        self.delay_s = 0.25

    def __call__(self, call: Call) -> Reply:
        """Answer after a while, so that somebody can look."""
        used = Usage(input_tokens=1000 * self.scale, output_tokens=100 * self.scale)
        self.paid += CALL * self.scale / 10
        return Reply(text="go on", usage=used, first_delay_s=self.delay_s)


def left(folder: Path) -> list[str]:
    """Processes that work in the folder or name it."""
    found: list[str] = []
    for one in Path("/proc").glob("[0-9]*"):
        try:
            told = (one / "cmdline").read_bytes().decode() + os.readlink(one / "cwd")
        except OSError:
            continue
        if str(folder) in told and int(one.name) != os.getpid():
            found.append(told)
    return found


@pytest.fixture
def model(tmp_path: Path) -> Iterator[tuple[Model, ModelServer]]:
    """A recorded run of six calls, and the model that answers its forks."""
    (tmp_path / "agent.py").write_text(textwrap.dedent(AGENT))
    model = Model()
    with ModelServer(model) as server:
        done = asking(tmp_path, server, "run", "--", sys.executable, "agent.py")
        assert done.status == 0, done.err
        model.scale, model.paid = 10, 0.0
        yield model, server


@pytest.mark.parametrize("delay_s", [0.0, 0.25])
@pytest.mark.parametrize(
    ("command", "jobs", "budget"),
    [
        (("fork", "last@0", "--text", "hello"), 1, 0.1),
        (("fork", "last@0", "--text", "hello", "--times", "4", "--jobs", "2"), 2, 0.2),
        (("blame", "last", "--jobs", "2"), 2, 0.25),
    ],
)
def test_what_runs_is_ended_where_it_would_pass_the_budget(
    model: tuple[Model, ModelServer],
    tmp_path: Path,
    command: tuple[str, ...],
    jobs: int,
    budget: float,
    delay_s: float,
) -> None:
    """It is said why, status 3; nothing of the agents is left, and what they spent is within the budget.

    However fast the model is: an agent asks before each call.
    """
    world, server = model
    world.delay_s = delay_s
    grades = () if command[0] == "fork" and "--times" not in command else ("--success-re", "BOOKED")
    done = asking(tmp_path, server, *command, *grades, "--budget", str(budget))
    assert done.status == 3, done.out + done.err
    assert not left(tmp_path)
    assert world.paid <= budget + 1e-6
    assert world.paid > budget / 2
    bound, *more = done.err.splitlines()
    running = "a call that runs when it ends is" if jobs == 1 else f"{jobs} calls that run when it ends are"
    assert bound.startswith(f"budget ${budget:.4f}: {running} paid for")
    said = "it was ended before its next call, as the budget has no room for it; raise --budget to let it end"
    if "--times" in command:
        assert "stopped at the budget" in done.out
        assert "budget; the budget ended" in done.out
    else:
        assert more
        assert said in more[-1]
    if command[0] == "fork":
        assert "≥" not in done.out, "the call that there was no room for was never sent"
        assert f"${world.paid:.4f}" in done.out
    if command[0] == "blame":
        assert "ended: budget" in done.out
        assert "to go on: tracefork-otel blame resume" in done.out
        again = here("blame", "resume", "last", "--budget", f"{world.paid * 0.98}", cwd=tmp_path)
        assert again.status == 2
        assert "is less than the experiment took" in again.err


def test_prices_that_were_given_stand_in_the_forks_sums(
    model: tuple[Model, ModelServer], tmp_path: Path
) -> None:
    """What the command said is what `forks`, `runs` and `ls` say; the exchanges keep what the list says."""
    _, server = model
    given = ("--price", "my-own=1/2", "--price", "claude-sonnet-4-5=0")
    done = asking(tmp_path, server, "fork", "last@4", "--model", "my-own", *given)
    assert " · 4 served, 1 edited, 2 live · $0.0240 · " in done.out, done.out + done.err
    for view in ("forks", "runs where kind = 'fork'"):
        (row,) = here("sql", f"select cost_usd, unpriced from {view}", "--json", cwd=tmp_path).rows
        assert row == {"cost_usd": pytest.approx(0.024), "unpriced": 0}
    asked = "select e.model, e.cost_usd from exchanges e join forks f using (run_id) where not e.replayed"
    rows = here("sql", asked, "--json", cwd=tmp_path).rows
    assert rows == [{"model": "my-own", "cost_usd": 0.0}] * 2
