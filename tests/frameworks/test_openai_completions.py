"""An agent on the openai SDK's legacy completions: recorded, read, replayed, forked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from answering import Response, answering, events, whole
from frameworks.script import Script

AGENT = """
import os

import openai

sdk = openai.OpenAI(base_url=os.environ["FAKE"] + "/v1", api_key="none", max_retries=0)
first = sdk.completions.create(model="gpt-3.5-turbo-instruct", prompt="Name a city.").choices[0].text
stream = sdk.completions.create(
    model="gpt-3.5-turbo-instruct",
    prompt=["Praise " + first],
    stream=True,
    stream_options={"include_usage": True},
)
print("".join(choice.text for part in stream for choice in part.choices))
"""


def model(path: str, asked: dict[str, Any]) -> Response:
    """Names a city, or praises what it is given, word by word."""
    base = {"id": "cmpl-1", "object": "text_completion", "created": 1_750_000_000, "model": asked["model"]}
    usage = {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
    if not asked.get("stream"):
        choice = {"text": "Lima", "index": 0, "logprobs": None, "finish_reason": "stop"}
        return whole({**base, "choices": [choice], "usage": usage})
    words = [asked["prompt"][0].removeprefix("Praise "), " is", " fine"]
    return events(
        *(
            {**base, "choices": [{"text": word, "index": 0, "logprobs": None, "finish_reason": None}]}
            for word in words
        ),
        {**base, "choices": [{"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"}]},
        {**base, "choices": [], "usage": usage},
    )


@pytest.mark.slow
def test_an_agent_on_completions(tmp_path: Path) -> None:
    """It is read in SQL with its price, replays exactly, and forks by a text, whole and streamed."""
    with answering(model) as server:
        script = Script(tmp_path, server, AGENT)
        script.record(says="Lima is fine", steps=2)
        assert script.rows(
            "select provider, operation, model, streamed, input_tokens, output_tokens, cost_usd > 0 "
            "from exchanges order by step"
        ) == [
            ("openai", "text_completion", "gpt-3.5-turbo-instruct", streamed, 4, 3, True)
            for streamed in (False, True)
        ]
        assert script.rows("select step, role, content from messages order by step, position") == [
            (0, "user", "Name a city."),
            (0, "assistant", "Lima"),
            (1, "user", "Praise Lima"),
            (1, "assistant", "Lima is fine"),
        ]
        script.replay()
        assert script.fork(0, "--text", "Oslo", says="Oslo is fine")["calls_live"] == 1
        assert script.fork(1, "--text", "No.", says="No.")["calls_live"] == 0
        none = script.typed("fork", "last@0", "--tool-input", "{}")
        assert none.status != 0
        assert "calls no tool" in none.err
