"""Each framework's agent as a script: under `run` with no line, and by the one line without `run`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.command import Typed, environment, tracefork
from frameworks.bench import chains, clerk
from tracefork_backend.rerun.edits import tool_input
from tracefork_backend.rerun.forker import Fork, Forker, Planned
from tracefork_backend.simulate import ModelServer
from tracefork_backend.store import open_store

# Each test starts two or three agents, each of which imports a framework.
pytestmark = pytest.mark.slow

AGENTS = Path(__file__).parent / "agents"
LINE = "from tracefork_otel import TraceforkInstrumentor\n\nTraceforkInstrumentor().instrument()\n"
ANSWER = "10092000 and 1763000\n"


@dataclass(frozen=True)
class Script:
    """A script among `agents`, the packages it needs, and what stands above its exchanges."""

    name: str
    needs: tuple[str, ...]
    words: tuple[str, ...] = ()
    above: tuple[str, ...] = ()
    """Names of spans between an exchange and the process, with the SDK's own, where a provider is set."""

    def __str__(self) -> str:
        return "-".join((self.name, *self.words)).replace("/", "_")


SCRIPTS = [
    Script(
        "anthropic_tool_runner",
        ("anthropic",),
        above=("anthropic.messages.create", "anthropic.messages.tool_runner"),
    ),
    Script("anthropic_async_stream", ("anthropic",), above=("anthropic.messages.create",)),
    Script("langgraph_loop", ("langgraph", "langchain_anthropic"), above=("anthropic.messages.create",)),
    Script(
        "pydantic_ai_agent",
        ("pydantic_ai",),
        above=("anthropic.messages.create", "chat claude-haiku-4-5", "invoke_agent agent"),
    ),
    Script("openai_agents_agent", ("agents",)),
    Script("litellm_loop", ("litellm",), ("openai/gpt-5-mini",)),
    Script("litellm_loop", ("litellm",), ("anthropic/claude-haiku-4-5", "async")),
]


@dataclass(frozen=True)
class Place:
    """A folder, and the model that is talked to from there."""

    folder: Path
    server: ModelServer

    @property
    def variables(self) -> dict[str, str]:
        """What leads the SDKs to the model."""
        return {
            "ANTHROPIC_BASE_URL": self.server.url,
            "OPENAI_BASE_URL": self.server.openai_url,
            "ANTHROPIC_API_KEY": "k",
            "OPENAI_API_KEY": "k",
        }

    def typed(self, *words: str) -> Typed:
        """The command `tracefork-otel WORDS`."""
        return tracefork(*words, cwd=self.folder, **self.variables)

    def replays(self) -> str:
        """The id of the only run, which has three whole steps and replays exactly with no request."""
        assert len(self.server.requests) == 3
        (row,) = self.typed("ls", "--json").rows
        assert (row["steps"], row["complete"], row["status"]) == (3, True, "ok")
        again = self.typed("replay", "last")
        assert again.status == 0, again.out + again.err
        assert "3 of 3 exchanges served from the tape, 0 bytes from the network" in again.out
        assert len(self.server.requests) == 3
        return row["run_id"]

    def forks(self, run_id: str) -> None:
        """The run forks at its middle step, and the real framework goes on from there."""
        forked = self.typed("fork", f"{run_id}@1", "--tool-input", '{"city": "Oslo"}', "--json")
        assert forked.status == 0, forked.out + forked.err
        (fork,) = forked.rows
        assert (fork["calls_replayed"], fork["calls_live"]) == (1, 1)
        assert "10092000 and 717710" in forked.out
        assert len(self.server.requests) == 4


@pytest.mark.parametrize("line", [False, True], ids=["run", "line"])
@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_script(script: Script, line: bool, tmp_path: Path) -> None:
    """The unmodified script, under `run`: recorded, replayed, forked midway; by the one line: replayed."""
    for package in script.needs:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    source = (AGENTS / f"{script.name}.py").read_text()
    head, future, rest = source.partition("from __future__ import annotations\n")
    (tmp_path / "agent.py").write_text(head + future + (LINE if line else "") + rest)
    with ModelServer(clerk, seed=5) as server:
        place = Place(tmp_path, server)
        if line:
            done = subprocess.run(
                [sys.executable, "agent.py", *script.words],
                cwd=tmp_path,
                env=environment(**place.variables),
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            assert (done.returncode, done.stdout) == (0, ANSWER), done.stderr
            place.replays()
        else:
            recorded = place.typed("run", "--provider", "--", sys.executable, "agent.py", *script.words)
            assert (recorded.status, recorded.out) == (0, ANSWER), recorded.err
            assert "3 steps" in recorded.err
            with open_store(tmp_path / ".tracefork") as store:
                found = chains(store, store.run("last"))
            for above in found:
                # In their order, each found after the one before: others may stand in between.
                names = iter(above)
                assert all(any(name.startswith(want) for name in names) for want in script.above), above
            place.forks(place.replays())


def test_scripts_have_no_line_of_ours() -> None:
    """No agent among the scripts knows of us."""
    for path in AGENTS.glob("*.py"):
        assert "tracefork" not in path.read_text()
    assert {script.name for script in SCRIPTS} == {path.stem for path in AGENTS.glob("*.py")}


def bodies(fork: Fork) -> list[bytes]:
    """What it asked."""
    return [exchange.request.body for exchange in fork.run.exchanges]


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_forks_from_a_warm_process(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They ask and print what a fork from a fresh start does, byte for byte."""
    for package in script.needs:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    (tmp_path / "agent.py").write_text((AGENTS / f"{script.name}.py").read_text())
    monkeypatch.chdir(tmp_path)
    with ModelServer(clerk, seed=5) as server:
        place = Place(tmp_path, server)
        place.typed("run", "--", sys.executable, "agent.py", *script.words)
        for name, value in place.variables.items():
            monkeypatch.setenv(name, value)
        with open_store(tmp_path / ".tracefork") as store:
            run = store.run("last")
            with Forker(run) as forker:
                change = tool_input({"city": "Oslo"}).bind(forker.tape, 1)
                fresh, *warm = forker.forks([Planned(change=change)] * 3)
                assert forker._stage.way.is_warm  # type: ignore[union-attr]
    told = [
        (one.problem, one.notes, one.exit_status, one.stdout, one.stderr, *bodies(one))
        for one in (fresh, *warm)
    ]
    assert "717710" in fresh.stdout
    assert told[1:] == told[:1] * 2
