"""What tests of frameworks share: a model that calls a tool twice, and an agent recorded in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from conftest import Capture
from opentelemetry.sdk.trace import TracerProvider
from tracefork_backend.rerun.edits import text, tool_input
from tracefork_backend.rerun.forker import Fork
from tracefork_backend.rerun.forking import fork
from tracefork_backend.rerun.replaying import replay
from tracefork_backend.simulate import ModelServer
from tracefork_backend.simulate.model import Call, Reply, ToolUse
from tracefork_backend.store import Run, Store, open_store

PEOPLE = {"Lima": "10092000", "Quito": "1763000", "Oslo": "717710"}
ASKED = ("Lima", "Quito")
QUESTION = "How many people live in Lima and in Quito?"


def population(city: str) -> str:
    """How many people live in a city."""
    return PEOPLE[city]


def clerk(call: Call) -> Reply:
    """Asks the tool for each city in turn, one a call, then answers with what it was told."""
    told = [result for _, result in call.tool_results]
    if len(told) < len(ASKED):
        return Reply(text="I look it up.", tools=(ToolUse("population", {"city": ASKED[len(told)]}),))
    return Reply(text=" and ".join(told))


@dataclass(frozen=True, slots=True)
class Bench:
    """A place where a framework's agent is recorded, replayed and forked."""

    server: ModelServer
    capture: Capture
    provider: TracerProvider

    def record(self, agent: Callable[[], str]) -> Run:
        """The run of one call of the agent under a span named `mine`; it gave the right answer."""
        self.capture.on(tracer_provider=self.provider)
        with self.provider.get_tracer("test").start_as_current_span("mine"):
            said = agent()
        self.capture.off()
        assert said == "10092000 and 1763000"
        run = open_store(self.capture.store).run("last")
        assert (run.steps, len(self.server.requests)) == (3, 3)
        assert run.complete, run.incomplete_reasons
        self.server.requests.clear()
        return run

    def holds(self, run: Run, agent: Callable[[], str]) -> None:
        """The run replays exactly without a request, and forks at its middle step."""
        again = replay(run, agent=agent)
        assert again.passed, again.receipt
        assert (again.matched, again.total, again.result) == (3, 3, "10092000 and 1763000")
        assert self.server.requests == []
        other = self._forked(fork(run, at=1, edit=tool_input({"city": "Oslo"}), agent=agent))
        assert (other.result, other.calls_replayed, other.calls_live) == ("10092000 and 717710", 1, 1)
        assert len(self.server.requests) == 1
        ended = self._forked(fork(run, at=1, edit=text("I would rather not."), agent=agent))
        assert (ended.result, ended.calls_replayed, ended.calls_live) == ("I would rather not.", 1, 0)

    def _forked(self, made: Fork | list[Fork]) -> Fork:
        assert isinstance(made, Fork)
        assert made.problem is None, made.problem
        return made

    def parents(self, run: Run) -> list[list[str]]:
        """The names of the spans above each exchange, the nearest first."""
        return chains(open_store(self.capture.store), run)


def chains(store: Store, run: Run) -> list[list[str]]:
    """The names of the spans above each exchange of the run, the nearest first."""
    rows = store.sql(f"select span_id, parent_span_id, name from spans where trace_id = '{run.run_id}'")
    spans = {span_id: (parent, name) for span_id, parent, name in rows.fetchall()}
    found: list[list[str]] = []
    for exchange in run.exchanges:
        above, at = [], exchange.parent_span_id
        while at and at in spans:
            at, name = spans[at]
            above.append(name)
        found.append(above)
    return found
