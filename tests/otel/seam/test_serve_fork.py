"""What forks do beside what holds of all clients (test_contract_forks.py): files of theirs, and SDKs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from conftest import Capture
from otel.seam.staged import forking
from recorded import Recorded, fetch, read_store
from tracefork_backend.simulate import ModelServer

from tracefork_otel import Tape, launch
from tracefork_otel.exchange import Response
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.settings import Settings


def say(module: ModuleType, kind: str, url: str, text: str) -> Any:
    """The response to a JSON request."""
    return fetch(module, kind, "POST", f"{url}/raw/echo", json={"say": text, "n": [1]})


@pytest.mark.parametrize("missing", ["tape", "intervention"])
def test_a_fork_without_its_files_sends_nothing(missing: str, server: ModelServer, tmp_path: Path) -> None:
    """Where tape or intervention cannot be read, every request fails and none goes over the network."""
    Tape(run_id="0" * 32, exchanges=()).dump(tmp_path / "tape")
    chosen = Settings(
        mode="fork",
        tape=tmp_path / ("gone" if missing == "tape" else "tape"),
        intervention=tmp_path / "gone",
        store=tmp_path / "store",
        seal=False,
    )
    with launch.playing(chosen), pytest.raises(httpx2.ConnectError, match="gone"):
        say(httpx2, "sync", server.url, "a")
    assert server.requests == []


def ask_anthropic(url: str, text: str) -> str:
    """What a model of Anthropic's answers, asked by its SDK."""
    client = anthropic.Anthropic(base_url=url, api_key="k")
    asked: Any = {"role": "user", "content": text}
    return client.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=[asked]).id


def ask_openai(url: str, text: str) -> str:
    """What a model of OpenAI's answers, asked by its SDK."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="k")
    asked: Any = {"role": "user", "content": text}
    return client.chat.completions.create(model="gpt-4o-mini", messages=[asked]).id


@pytest.mark.parametrize("ask", [ask_anthropic, ask_openai])
def test_no_client_waits_for_an_attempt_that_is_on_the_tape(
    ask: Callable[[str, str], str], capture: Capture, server: ModelServer, tmp_path: Path
) -> None:
    """Each fork would wait as long as the provider had told the recorded run to, and blame makes many."""
    capture.on()
    answers = [ask(server.url, text) for text in "ab"]
    first, last = capture.read().in_order()
    refused = [
        replace(
            first,
            span_id=f"{at:016x}",
            started_ns=first.started_ns - 90 + 10 * at,
            ended_ns=first.started_ns - 85 + 10 * at,
            response=Response(status=status, headers=(("retry-after", "50"),), body=b"{}", chunk_sizes=(2,)),
        )
        for at, status in enumerate((529, 503))
    ]
    recorded = Recorded([*refused, first, last], [], [], [])
    began = time.monotonic()
    with forking(recorded, tmp_path / "f", Intervention(kind="noop", step=3, label="noop")) as store:
        assert [ask(server.url, text) for text in "ab"] == answers
    assert time.monotonic() - began < 30
    found = read_store(store).in_order()
    assert [one.response.status for one in found if one.response] == [529, 503, 200, 200]
    assert all(one.replayed for one in found)
