"""A request that is not on the tape is explained: nearest recorded one, first difference, cause."""

from __future__ import annotations

import json
from typing import Any

import pytest
from growth_guard import soon
from hypothesis import given
from hypothesis import strategies as st

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Request
from tracefork_otel.play.match import Candidate, Explanation, explain, fingerprint
from tracefork_otel.wire.paths import format_path, parse_path

ANTHROPIC = "https://api.anthropic.com/v1/messages"
CHAT = "https://api.openai.com/v1/chat/completions"
RESPONSES = "https://api.openai.com/v1/responses"


def post(body: Any, url: str = ANTHROPIC) -> Request:
    """A POST of that JSON, or of those bytes."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request(method="POST", url=url, body=raw)


def user(text: str, **members: object) -> dict[str, Any]:
    """An Anthropic body with one user message."""
    return {"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": text}], **members}


def tool_turn(result: object) -> dict[str, Any]:
    """An Anthropic body whose last message is a tool's result."""
    return {
        "model": "claude-x",
        "messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": result}]},
        ],
    }


def chat_turn(result: str) -> dict[str, Any]:
    """A chat completions body whose last message is a tool's result."""
    return {
        "model": "gpt",
        "messages": [{"role": "user", "content": "go"}, {"role": "tool", "content": result}],
    }


def responses_turn(result: str) -> dict[str, Any]:
    """A Responses body whose last item is a function's output."""
    return {"model": "gpt", "input": [{"type": "function_call_output", "call_id": "c", "output": result}]}


def drift(recorded: Request, got: Request, **options: Any) -> Explanation:
    """The explanation of a request against a tape of one."""
    return explain(got, [Candidate(0, recorded, False)], **options)


@pytest.mark.parametrize(
    ("a", "b", "path", "cause"),
    [
        (
            user("It is 2026-11-24T10:00:01Z"),
            user("It is 2026-11-24T10:00:07Z"),
            "messages[0].content",
            "clock",
        ),
        (user("Now: 1795514400.123"), user("Now: 1795514461.9"), "messages[0].content", "clock"),
        (user("Today is Tue Nov 24"), user("Today is Wed Nov 25"), "messages[0].content", "clock"),
        (user("at 9:41 PM"), user("at 10:02 AM"), "messages[0].content", "clock"),
        (
            user("run 6f1c1f0e-0d5f-4a4f-9f7c-2b1f5b8e3a10 go"),
            user("run 0b9b2f1a-77f0-4c8e-8e57-c5a1d3c9f7aa go"),
            "messages[0].content",
            "id",
        ),
        (user("id req_8fK2mQ9x1"), user("id req_Zp41kk0Ab"), "messages[0].content", "id"),
        (
            user("x", metadata={"user_id": "5f2c9e1ab7"}),
            user("x", metadata={"user_id": "77aa01b2cc"}),
            "metadata.user_id",
            "id",
        ),
        (user("noise 0.8271635"), user("noise 0.1102938"), "messages[0].content", "random"),
        (user("x", seed=83712), user("x", seed=11), "seed", "parameter"),
        (user("x", seed=83712), user("x", seed=90211), "seed", "random"),
        (user("Find a cheap flight"), user("Find the best flight"), "messages[0].content", "prompt"),
        (user("x", system="Be brief."), user("x", system="Be long."), "system", "prompt"),
        (
            user("x", model="claude-sonnet-4-20250514"),
            user("x", model="claude-opus-4-20250514"),
            "model",
            "model",
        ),
        (user("x", temperature=0.1), user("x", temperature=0.9), "temperature", "parameter"),
        (user("x", max_tokens=1024), user("x", max_tokens=2048), "max_tokens", "parameter"),
        (user("x"), user("x", top_k=3), "top_k", "parameter"),
        (tool_turn("3 seats"), tool_turn("0 seats"), "messages[2].content[0].content", "tool_result"),
        (tool_turn("at 2026-01-01"), tool_turn("at 2026-01-02"), "messages[2].content[0].content", "clock"),
    ],
)
def test_causes(a: dict[str, Any], b: dict[str, Any], path: str, cause: str) -> None:
    """The first differing path and the cause are found for each kind of change."""
    found = drift(post(a), post(b))
    assert (found.path, found.cause, found.differences, found.nearest) == (path, cause, 1, 0)


@pytest.mark.parametrize(
    ("make", "url", "path"),
    [(chat_turn, CHAT, "messages[1].content"), (responses_turn, RESPONSES, "input[0].output")],
)
def test_tool_results_of_openai(make: Any, url: str, path: str) -> None:
    """Tool results are told from prompts in both of OpenAI's formats."""
    found = drift(post(make("sunny"), url), post(make("rainy"), url))
    assert (found.path, found.cause, found.recorded, found.got) == (path, "tool_result", "sunny", "rainy")


@pytest.mark.parametrize(
    ("recorded", "got", "named"),
    [
        ("Work in /tmp/work-a1b_2c3d.", "Work in /tmp/work-zz9_88yx.", True),
        ("see /var/folders/x9/q/T/tmpab12cd34/plan.md", "see /var/folders/x9/q/T/tmp9z8y7x6w/plan.md", True),
        (
            "open /tmp/agentq1w2e3r4.sock, /tmp/tmp1_abcdef",
            "open /tmp/agent_8xx77yy.sock, /tmp/tmp2_fedcba",
            True,
        ),
        ("Work in /tmp/work-a1b_2c3d.", "Play in /tmp/work-zz9_88yx.", False),
        ("Work in /home/work-a1b_2c3d.", "Work in /home/work-zz9_88yx.", False),
        ("read /tmp/invoices", "read /tmp/receipts", False),
    ],
)
def test_a_temporary_name_is_said_to_be_one(recorded: str, got: str, named: bool) -> None:
    """What helps against other draws does not help there: the recording of draws leaves tempfile out."""
    said = drift(post(user(recorded)), post(user(got))).text()
    assert ("tempfile" in said) == named
    if named:
        assert "run --draws" not in said
        assert said.endswith("--ignore 'messages[0].content'")


def test_one_message_more() -> None:
    """A message that only one side has is shown as absent on the other."""
    longer = tool_turn("ok")
    shorter = {**longer, "messages": longer["messages"][:2]}
    found = drift(post(shorter), post(longer))
    assert (found.path, found.recorded, found.cause) == ("messages[2]", "(absent)", "tool_result")


def test_order() -> None:
    """The same members or elements in another order are told from other values."""
    assert drift(post({"a": 1, "b": [2]}), post({"b": [2], "a": 1})).cause == "order"
    found = drift(post({"tools": [{"n": 1}, {"n": 2}]}), post({"tools": [{"n": 2}, {"n": 1}]}))
    assert (found.path, found.cause) == ("tools", "order")
    assert "order of your own" in found.text()
    found = drift(post({"system": "all: Ra Rb\nRc"}), post({"system": "all: Rb Ra\nRc"}))
    assert (found.path, found.cause) == ("system", "prompt")
    assert "order of your own" in found.text()
    assert "order of your own" not in drift(post({"system": "Ra Rb"}), post({"system": "Rb Rc"})).text()


def test_values_are_shortened_around_the_difference() -> None:
    """Two long values show the place where they part, not their common beginning."""
    found = drift(post(user("x" * 5_000 + "apple" + "y" * 500)), post(user("x" * 5_000 + "pear" + "y" * 500)))
    assert found.recorded is not None
    assert found.got is not None
    assert "apple" in found.recorded
    assert "pear" in found.got
    assert max(len(found.recorded), len(found.got)) < 90


def test_bytes_that_are_not_json() -> None:
    """Outside JSON the byte offset is the path."""
    found = drift(post(b"\xff\x00abc\x01"), post(b"\xff\x00abd\x01"))
    assert (found.path, found.cause) == ("byte 4", "parameter")
    assert drift(post(b"[" * 100_000), post(b"[" * 99_999)).path == "byte 99999"


def test_other_host() -> None:
    """A request to another URL names both URLs."""
    found = drift(post(user("x")), post(user("x"), "http://127.0.0.1:9/v1/messages"))
    assert (found.path, found.nearest, found.cause) == ("url", None, "parameter")
    assert found.got == "http://127.0.0.1:9/v1/messages"


def conversation(turns: int, stamp: str = "morning") -> Request:
    """A growing conversation at that many turns."""
    turns_made = [{"role": "user", "content": f"turn {n} {stamp} " + "lorem " * 30} for n in range(turns + 1)]
    return post({"model": "m", "system": "s", "messages": turns_made})


@pytest.mark.parametrize("used", [0, 3, 7])
def test_the_expected_step_is_nearest(used: int) -> None:
    """A drift in every message is explained by the step that the tape expects next, not by a neighbour."""
    candidates = [Candidate(n, conversation(n), n < used) for n in range(10)]
    found = explain(conversation(used, "evening"), candidates)
    assert (found.step, found.nearest, found.differences) == (used, used, used + 1)


def test_a_fan_out_is_compared_with_its_own_branch() -> None:
    """Among many unused requests the most similar one is the nearest."""
    words = ("tea", "rice", "oil")
    candidates = [Candidate(n, post(user(f"about {word} " * 40)), False) for n, word in enumerate(words)]
    found = explain(post(user("about rice " * 39 + "about corn ")), candidates)
    assert (found.step, found.nearest) == (1, 1)


def test_a_used_up_tape_is_extra() -> None:
    """A new request after the last recorded one is extra, at the step after the end."""
    found = explain(post(user("more")), [Candidate(0, post(user("x")), True)])
    assert (found.step, found.cause, found.nearest, found.path) == (1, "extra", 0, "messages[0].content")
    assert explain(post(user("x")), []).cause == "extra"


def test_explanation_round_trips_and_reads() -> None:
    """The JSON of an explanation gives it back, and its text has step, path, both values and the cause."""
    found = drift(post(user("a cat")), post(user("a dog")))
    assert Explanation.from_json(found.to_json()) == found
    for part in ("step 0", "POST", "messages[0].content", "a cat", "a dog", "prompt"):
        assert part in found.text()
    stamped = drift(post(user("at 10:00:00")), post(user("at 10:00:01")))
    assert stamped.text().endswith("--ignore 'messages[0].content'")


def test_large_bodies_are_explained_quickly() -> None:
    """A 200 KB request is explained against a tape of 60 such requests in a moment."""

    def body(n: int) -> Request:
        return post(user("word " * 40_000 + f"step {n} a-b-c-" * 20))

    candidates = [Candidate(n, body(n), n < 30) for n in range(60)]
    with soon(0.2):
        found = explain(
            post(user("word " * 20_000 + "changed " + "word " * 20_000 + "step 30 a-b-c-" * 20)), candidates
        )
    assert (found.nearest, found.path) == (30, "messages[0].content")


def test_ignored_paths_are_not_reported() -> None:
    """The first difference outside the ignored paths is the one that is reported."""
    a, b = user("x", metadata={"user_id": "1"}, top_p=0.1), user("x", metadata={"user_id": "2"}, top_p=0.2)
    assert drift(post(a), post(b), ignore=["metadata"]).path == "top_p"


@pytest.mark.parametrize("path", ["a", "a.b[0].c", "messages[*].content", '["odd key"].x', "[3][*]"])
def test_paths_parse_and_format(path: str) -> None:
    """A path that parses is written back the same."""
    tokens = parse_path(path)
    assert format_path(tokens).replace(".*", "[*]").replace('["*"]', "[*]") == path


@pytest.mark.parametrize("path", ["", "$", "a[", "a[x]", "a]"])
def test_wrong_paths(path: str) -> None:
    """What is no path is refused with an example."""
    with pytest.raises(UsageError, match="JSON path"):
        parse_path(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(a=JSON, b=JSON)
def test_any_two_bodies_match_or_are_explained(a: Any, b: Any) -> None:
    """Fingerprints are equal exactly for equal bodies; unequal ones always have a path and two values."""
    one, two = post(a), post(b)
    assert (fingerprint(one) == fingerprint(two)) == (one.body == two.body)
    if one.body != two.body:
        found = drift(one, two)
        assert found.path
        assert found.recorded is not None
        assert found.differences >= 1
    respelled = post(json.dumps(a, indent=2).encode())
    assert fingerprint(one, match="json") == fingerprint(respelled, match="json")


@pytest.mark.parametrize(("length", "read"), [(300, 2), (301, 1)])
def test_a_late_drift_reads_its_request_once(length: int, read: int) -> None:
    """However many of the tape's calls are compared with it; those of another length are not hashed."""
    hashed: list[int] = []

    class Counted(Request):
        __slots__ = ()

        def digest(self, before: bytes = b"") -> str:
            hashed.append(len(self.body))
            return super().digest(before)

    def ask(body: bytes) -> Request:
        return Counted(method="POST", url="https://api.openai.com/v1/responses", body=body)

    used = [Candidate(step, ask(b"%0300d" % step), True) for step in range(50)]
    explain(ask(b"x" * length), used)
    assert hashed.count(length) == (read - 1) * 50 + 1
    assert len(hashed) == (read - 1) * 50 + 1
