"""The session that an agent's program makes up for each process does not count, and everything else does."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from tracefork_otel.exchange import Request
from tracefork_otel.play.match import fingerprint

CLAUDE, CODEX = "claude-cli/2.0.31 (external, sdk-py)", "codex_cli_rs/0.42.0 (Linux)"


def of_claude(session: str, said: str = "hi", device: str = "ab12") -> dict[str, object]:
    """A body of Claude Code's."""
    user = f"user_{device}_account__session_{session}"
    return {"model": "m", "messages": [{"role": "user", "content": said}], "metadata": {"user_id": user}}


def of_later_claude(session: str, said: str = "hi", device: str = "ab12") -> dict[str, object]:
    """A body of later versions, in which the id is JSON."""
    user = json.dumps({"device_id": device, "account_uuid": "", "session_id": session})
    return {**of_claude(session, said), "metadata": {"user_id": user}}


def of_codex(session: str, said: str = "hi", device: str = "ab12") -> dict[str, object]:
    """A body of Codex."""
    return {"model": device, "input": said, "prompt_cache_key": session}


def key(body: object, agent: str, **how: object) -> str:
    """What a request with this body is matched by."""
    headers = (("user-agent", agent), ("content-type", "application/json"))
    sent = json.dumps(body, **how).encode()  # pyright: ignore[reportArgumentType]
    return fingerprint(
        Request(method="POST", url="https://api.anthropic.com/v1/messages", headers=headers, body=sent)
    )


@pytest.mark.parametrize(
    ("body", "agent"), [(of_claude, CLAUDE), (of_later_claude, CLAUDE), (of_codex, CODEX)]
)
def test_another_session_is_the_same_request(body: object, agent: str) -> None:
    """Only the session may differ, and only where that program says it, however the JSON is spaced."""
    assert callable(body)
    one, two = str(uuid4()), str(uuid4())
    for how in {}, {"separators": (",", ":")}:
        assert key(body(one), agent, **how) == key(body(two), agent, **how)
    assert key(body(one), agent) != key(body(one, said="ho"), agent)
    assert key(body(one), agent) != key(body(two, device="cd34"), agent)
    assert key(body(one), "python-httpx/0.28") != key(body(two), "python-httpx/0.28")
    quoted = [body(one, said=json.dumps(body(other))) for other in (one, two)]
    assert key(quoted[0], agent) != key(quoted[1], agent)


@pytest.mark.parametrize(
    "user", ["user_1", "", "session_x", f"user_{'a' * 64}_account_1_session_none", "{}", '{"a']
)
def test_other_ids_of_users_count(user: str) -> None:
    """What says no session of a known form is compared as it stands."""
    bodies = [{**of_claude("x"), "metadata": {"user_id": f"{user}{more}"}} for more in ("", "1")]
    assert key(bodies[0], CLAUDE) != key(bodies[1], CLAUDE)
    assert key(bodies[0], CLAUDE) == key(bodies[0], CLAUDE)


@pytest.mark.parametrize(
    "agent", ["codex/1.0", "codex_exec/0.50.0 (Mac OS)", "codex_vscode/0.1", "codex_sdk_ts/1"]
)
def test_programs_of_codex(agent: str) -> None:
    """Each says its session in the same way."""
    assert key(of_codex(str(uuid4())), agent) == key(of_codex(str(uuid4())), agent)


@pytest.mark.parametrize("agent", ["codexify-app/1.0", "codex-like-bot/2", "codexa/1", "my codex/1", "codex"])
def test_programs_that_are_named_alike(agent: str) -> None:
    """What they send is compared as it stands."""
    assert key(of_codex(str(uuid4())), agent) != key(of_codex(str(uuid4())), agent)


def test_the_same_key_in_what_is_said() -> None:
    """Only the outermost one is the session."""
    one, two = str(uuid4()), str(uuid4())
    inner = [{**of_codex(one), "input": [{"arguments": {"prompt_cache_key": other}}]} for other in (one, two)]
    assert key(inner[0], CODEX) != key(inner[1], CODEX)
    assert key(inner[1], CODEX) == key({**inner[1], "prompt_cache_key": str(uuid4())}, CODEX)
    long = [
        {"input": "x" * 9999, "prompt_cache_key": session, "text": {"a": "y" * 99}} for session in (one, two)
    ]
    assert key(long[0], CODEX) == key(long[1], CODEX)
