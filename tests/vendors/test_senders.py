"""Vendors whose own threads send what an agent said: unmodified, their server on a real socket."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from tracefork_backend.simulate import ModelServer

pytest.importorskip("grpc", reason="the vendors' packages are not installed")
from vendors.sink import sink
from vendors.test_vendors import LINE, RUN, SECRET, Agent, Vendor

CALLS = f"""
import anthropic
client = anthropic.Anthropic()

@traced
def ask(number):
    asked = [{{"role": "user", "content": f"{SECRET} {{number}}"}}]
    return client.messages.create(model="claude-haiku-4-5", max_tokens=50, messages=asked).content[0].text

for number in range(3):
    print("SAID", len(ask(number)) > 0)
"""


@dataclass(frozen=True, slots=True)
class Sending:
    """A vendor: the source that sets it up, which makes `traced`, the package, and its variables."""

    setup: str
    needs: str
    extra: dict[str, str]


SENDING = {
    "langsmith": Sending(
        """
import os
os.environ["LANGSMITH_ENDPOINT"] = os.environ["SINK"]
from langsmith import traceable as traced
""",
        "langsmith",
        {"LANGSMITH_TRACING": "true", "LANGSMITH_API_KEY": "none"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SENDING)
@pytest.mark.parametrize("order", ["first", "run"])
def test_it_has_its_traces_of_recordings_and_none_of_replays(name: str, order: str, tmp_path: Path) -> None:
    """Its requests are no steps; a replay passes, sends it nothing, and says so."""
    vendor = SENDING[name]
    pytest.importorskip(vendor.needs)
    with ModelServer() as server, sink() as received:
        agent = Agent(
            Vendor(vendor.setup, needs=vendor.needs, extra=vendor.extra), tmp_path, server, received
        )
        source = (LINE if order == "first" else "") + vendor.setup + CALLS
        ran = agent.starts(source, *(RUN if order == "run" else ()))
        assert (ran.status, ran.out.count("SAID True")) == (0, 3), ran.err
        assert [outcome for outcome, _, _ in agent.steps()] == ["complete"] * 3
        assert received.bodies
        received.forget()
        played = agent.typed("replay", "last")
        assert played.out.endswith("PASS    bit-exact\n"), played.out
        assert f"note    telemetry of {name} to 127.0.0.1:{received.server_port} was not sent" in played.out
        assert not received.bodies
        assert len(server.requests) == 3
