"""An intervention is checked against its tape before anything runs: what is wrong is said, the rest bound."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tracefork_backend.rerun import edits
from tracefork_backend.rerun.edits import Edit, from_flags

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Exchange, Outcome, Request, Response
from tracefork_otel.play.intervention import KINDS, Intervention
from tracefork_otel.tape.reads import ToolCall
from tracefork_otel.tape.tape import Tape
from tracefork_otel.wire.json_edits import apply_edits
from tracefork_otel.wire.replies import encode_reply

ANTHROPIC = "https://api.anthropic.com/v1/messages"
CHAT = "https://api.openai.com/v1/chat/completions"
JSON = (("content-type", "application/json"), ("request-id", "req_1"))
SSE = (("content-type", "text/event-stream"),)


def exchange(
    url: str,
    body: dict[str, Any] | bytes,
    response: Response | None,
    *,
    outcome: Outcome = "complete",
    method: str = "POST",
) -> Exchange:
    """A recorded exchange."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Exchange(
        trace_id="ab" * 16,
        span_id="cd" * 8,
        parent_span_id=None,
        process_id="p",
        seq=0,
        started_ns=1,
        ended_ns=2,
        request=Request(method=method, url=url, body=raw),
        response=response,
        outcome=outcome,
    )


def answer(body: object, headers: tuple[tuple[str, str], ...] = JSON) -> Response:
    """A recorded response in two chunks."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    half = len(raw) // 2
    return Response(
        status=200, headers=headers, body=raw, chunk_sizes=(half, len(raw) - half), chunk_offsets_us=(5, 9)
    )


ASKED = {
    "model": "claude-x",
    "max_tokens": 9,
    "system": [{"type": "text", "text": "Be brief."}],
    "messages": [{"role": "user", "content": "Book a flight"}, {"role": "user", "content": "now"}],
}
CALL = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x-1",
    "content": [{"type": "tool_use", "id": "toolu_1", "name": "book", "input": {"city": "Rome"}}],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 5, "output_tokens": 9},
}
SEARCH = exchange("https://search.example/q?x=1", b"", answer({"hits": [1]}), method="GET")
CALLED = exchange(ANTHROPIC, ASKED, answer(CALL))
STREAMED = exchange(
    CHAT,
    {"model": "gpt-x", "stream": True, "messages": [{"role": "user", "content": "go"}]},
    answer(b"data: {}\n\n", SSE),
)
TAPE = Tape(run_id="ab" * 16, exchanges=(SEARCH, CALLED, STREAMED))


def asked(**flags: Any) -> Edit:
    """The one edit that these values of flags ask for."""
    (edit,) = from_flags(flags)
    return edit


def build(tape: Tape, step: int, *, tail: Any = "live", **flags: Any) -> Intervention:
    """What these values of flags are at a step of the tape."""
    return asked(**flags).bind(tape, step, tail=tail)


def bound(*exchanges: Exchange, step: int = 0, **flags: Any) -> Intervention:
    """The intervention at a step of a tape of these exchanges."""
    return build(Tape(run_id="ab" * 16, exchanges=exchanges), step, **flags)


def test_a_text_is_encoded_for_its_step() -> None:
    """The whole response of the model is in the intervention, with step, label, tail and parent."""
    made = build(TAPE, 1, text="TK-12 is free", tail="recorded")
    assert (made.kind, made.step, made.label, made.tail) == ("text", 1, "text", "recorded")
    assert made.parent_run_id == TAPE.run_id
    assert made.response == encode_reply(CALLED.request, CALLED.response, text="TK-12 is free")
    assert made.response is not None
    assert json.loads(made.response.body)["content"] == [{"type": "text", "text": "TK-12 is free"}]
    assert Intervention.from_json(made.to_json()) == made


def test_edits_and_flags_bind_to_the_same() -> None:
    """Each of Python's edits gives what the flags of its kind give."""
    for edit, flags in [
        (edits.text("Hi"), {"text": "Hi"}),
        (edits.tool_input({"a": 1}), {"tool_input": '{"a": 1}'}),
        (edits.tool_input({"a": 1}, tool="book"), {"tool_input": '{"a": 1}', "tool": "book"}),
        (
            edits.request(set={"temperature": 0}, system="s"),
            {"set": ["temperature=0"], "system": "s"},
        ),
        (edits.request(model="claude-y"), {"model": "claude-y"}),
        (edits.fault(529), {"fault": "529"}),
        (edits.fault("timeout"), {"fault": "timeout"}),
        (edits.resample(), {"resample": True}),
        (edits.noop(), {"noop": True}),
    ]:
        assert from_flags(flags) == [edit]
        assert edit.bind(TAPE, 1) == build(TAPE, 1, **flags)


def test_a_whole_response_comes_from_a_file(tmp_path: Path) -> None:
    """The file's bytes are the body; a step that is no model call takes any bytes."""
    reply = tmp_path / "reply.json"
    reply.write_text(json.dumps({**CALL, "content": [{"type": "text", "text": "Hi"}]}))
    made = build(TAPE, 1, response=str(reply))
    assert made.response is not None
    assert (made.kind, made.response.body) == ("response", reply.read_bytes())
    assert made == edits.response(reply.read_text()).bind(TAPE, 1)
    reply.write_bytes(b"\x00\xff")
    other = build(TAPE, 0, response=str(reply)).response
    assert other is not None
    assert other.body == b"\x00\xff"
    with pytest.raises(UsageError, match="step 1: the response is not valid JSON"):
        build(TAPE, 1, response=str(reply))
    with pytest.raises(UsageError, match=r"--response: cannot read .*gone: No such file"):
        build(TAPE, 1, response=str(tmp_path / "gone"))


def test_request_edits_of_one_call_combine() -> None:
    """Paths, system prompt and model become one list of edits that give one request."""
    made = build(
        TAPE,
        1,
        set=["messages[0].content=Book a train", "temperature=0"],
        system="Be long.",
        model="claude-y",
    )
    assert made.kind == "request"
    assert made.label == "request messages[0].content=Book a train temperature=0 system model=claude-y"
    assert made.response is None
    assert json.loads(apply_edits(CALLED.request.body, made.edits)) == {
        **ASKED,
        "messages": [{"role": "user", "content": "Book a train"}, ASKED["messages"][1]],  # type: ignore[index]
        "temperature": 0,
        "system": "Be long.",
        "model": "claude-y",
    }


def test_a_system_message_is_put_before_edited_ones() -> None:
    """Paths speak of the recorded request, even where the system prompt is a message that comes first."""
    made = build(TAPE, 2, set=["messages[0].content=edited"], system="New.")
    assert json.loads(apply_edits(STREAMED.request.body, made.edits))["messages"] == [
        {"role": "system", "content": "New."},
        {"role": "user", "content": "edited"},
    ]


@pytest.mark.parametrize(
    ("given", "path", "value"),
    [
        ("temperature=0", "temperature", 0),
        ("stop=[1, null]", "stop", [1, None]),
        ("model=claude-y", "model", "claude-y"),
        ("a=b=c", "a", "b=c"),
        ('["a=b"].c="1"', '["a=b"].c', "1"),
        ("a=", "a", ""),
        ("a=NaN", "a", "NaN"),
        ("a={unclosed", "a", "{unclosed"),
        ("a=@@home", "a", "@home"),
    ],
)
def test_a_set_value_is_json_or_text(given: str, path: str, value: object) -> None:
    """What parses as JSON is that value, anything else the text itself; the path may hold an equals sign."""
    assert asked(set=[given]).changes == ((path, value),)


def test_values_are_read_from_files(tmp_path: Path) -> None:
    """`@file` is the file's text; for --tool-input, and a --set file that ends in .json, its JSON."""
    text, data = tmp_path / "new.md", tmp_path / "new.json"
    text.write_text("42\nÜber\n")
    data.write_text('{"a": [1]}')
    assert asked(text=f"@{text}").text == "42\nÜber\n"
    assert asked(system=f"@{text}").system == "42\nÜber\n"
    assert asked(system="@@team").system == "@team"
    assert asked(set=[f"a=@{text}", f"b=@{data}"]).changes == (("a", "42\nÜber\n"), ("b", {"a": [1]}))
    assert asked(tool_input=f"@{data}").value == {"a": [1]}
    assert edits.text("@team").text == "@team"
    with pytest.raises(UsageError, match=r"--text: cannot read .*gone\.md: No such file"):
        asked(text=f"@{tmp_path}/gone.md")
    text.write_bytes(b"a\xff")
    with pytest.raises(UsageError, match="not UTF-8 at byte 1"):
        asked(text=f"@{text}")
    data.write_text('{\n"a": }')
    with pytest.raises(UsageError, match="not valid JSON at line 2, column 6"):
        asked(tool_input=f"@{data}")


def test_a_flag_given_twice_makes_variants() -> None:
    """Values of one path, prompts and models make their product; what a kind has once makes one each."""
    found = from_flags({"set": ["a=1", "b=x", "$.a=2"], "model": ["m", "n"]})
    assert [edit.label for edit in found] == [
        "request a=1 b=x model=m",
        "request a=1 b=x model=n",
        "request $.a=2 b=x model=m",
        "request $.a=2 b=x model=n",
    ]
    assert from_flags({"text": ["a", "b"], "noop": False}) == [edits.text("a"), edits.text("b")]
    assert [edit.variant for edit in from_flags({"tool_input": ["{}", "[]"], "tool": "book"})] == [
        "tool_input book {}",
        "tool_input book []",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "choose one of --text, --response, --tool-input, --tool-result, --set"),
        ({"text": "a", "noop": True}, "one thing: choose one of --text, --noop"),
        ({"text": "", "model": "x"}, "choose one of --text, --set, --system, --model"),
        ({"tool_result": "a=1", "text": "a"}, "choose one of --text, --tool-result"),
        ({"tool_result": "a"}, "--tool-result 'a' is not NAME=VALUE: write it like"),
        ({"tool_result": "=1"}, "--tool-result '=1' is not NAME=VALUE"),
        ({"tool_result": "a=@gone.json"}, "--tool-result: cannot read gone.json"),
        ({"text": "a", "tool": "book"}, "--tool names the call"),
        ({"tool_input": "{'a': 1}"}, "--tool-input is not valid JSON at line 1, column 2"),
        ({"tool_input": '{"a": NaN}'}, "not valid JSON"),
        ({"fault": "404"}, "404 is no fault: use one of 429, 500, 529, timeout, disconnect"),
        ({"set": ["temperature"]}, "'temperature' is not PATH=VALUE"),
        ({"set": ["a..b=1"]}, "is not PATH=VALUE"),
        ({"set": ["a=1", "a=1"]}, "a=1: this variant is asked for twice; use --times"),
        ({"set": ["model=a"], "model": "b"}, "the model is set twice"),
    ],
)
def test_flags_that_ask_for_no_one_thing(flags: dict[str, Any], message: str) -> None:
    """Nothing, several things, or a value that is none: a UsageError says which flag and what to do."""
    with pytest.raises(UsageError, match=message):
        from_flags(flags)


@pytest.mark.parametrize(
    ("step", "flags", "message"),
    [
        (3, {"text": "a"}, r"run abababab has no step 3: its steps are 0\.\.2"),
        (-1, {"noop": True}, r"no step -1: its steps are 0\.\.2"),
        (0, {"text": "a"}, r"step 0: GET https://search\.example/q\?x=1 is no model call"),
        (0, {"tool_input": "{}"}, "step 0: .* is no model call"),
        (0, {"model": "a"}, "step 0: .* is no model call"),
        (0, {"system": "a"}, "step 0: .* is no model call"),
        (0, {"set": ["a=1"]}, "step 0: cannot edit a request whose body is not JSON"),
        (1, {"set": ["message[0].content=x"]}, r"step 1: .*near it are messages\[0\]\.content"),
        (1, {"set": ["messages[2].content=x"]}, "step 1: .*messages has 2 elements"),
        (1, {"tool_input": "{}", "tool": "gone"}, "step 1: .*does not call a tool 'gone'; it calls book"),
        (1, {"tool_input": "[1]"}, "step 1: the tool 'book' takes a JSON object"),
        (2, {"tool_input": "{}"}, "step 2: the recorded reply calls no tool"),
        (1, {"noop": True, "tail": "dead"}, "'dead' is no tail: use one of live, recorded, offline"),
        (
            0,
            {"tool_result": "book=1"},
            "step 0: its answer does not call book; it calls no tool; book is called at 1",
        ),
        (1, {"tool_result": "gone=1"}, "step 1: its answer does not call gone; it calls book"),
    ],
)
def test_what_does_not_fit_the_step_is_said(step: int, flags: dict[str, Any], message: str) -> None:
    """Step, kind and value are checked against the tape, and the error begins with the step."""
    with pytest.raises(UsageError, match=message):
        build(TAPE, step, **flags)


def tools(*given: dict[str, Any], asked: tuple[dict[str, Any], ...], at_once: bool = True) -> Tape:
    """A run whose one answer asks for these calls of `look`, which got what is `given`, in that order."""
    calls = [
        {"type": "tool_use", "id": f"t{at}", "name": "look", "input": one} for at, one in enumerate(asked)
    ]
    return Tape(
        run_id="ab" * 16,
        exchanges=(exchange(ANTHROPIC, ASKED, answer({**CALL, "content": calls})),),
        tools=tuple(
            ToolCall(
                name="look",
                arguments=json.dumps(one),
                form="value",
                result="0",
                span_id=f"{at:016x}",
                started_ns=10 + at,
                ended_ns=20 if at_once else 11 + at,
            )
            for at, one in enumerate(given)
        ),
    )


A, B = {"city": "Rome"}, {"city": "Oslo"}


@pytest.mark.parametrize(
    ("tape", "wanted", "call"),
    [
        (tools(B, A, asked=(A, B)), "look#1", 1),
        (tools(B, A, asked=(A, B)), "look#2", 0),
        (tools(B, A, asked=(A, B)), "t1", 0),
        (tools({**B, "days": 1}, {**A, "days": 1}, asked=(A, B)), "look#2", 0),  # a default beside it
        (tools({**A, "days": 1}, {**A, "days": 2}, asked=({**A, "days": 2}, A)), "look#2", 0),
        (tools(A, A, asked=(A, A)), "look#2", 1),
        (tools({"x": 2}, A, asked=(A, B)), "t1", 0),  # what is left
        (tools({"x": 1}, {"x": 2}, asked=(A, B), at_once=False), "look#2", 1),
        (tools({"x": 1}, asked=(A,)), "look", 0),
        (tools(A, A, asked=(A,)), "look#2", 1),  # it was tried again
        (tools(B, A, asked=(A,)), "look", 1),  # the other is another branch's
    ],
)
def test_a_call_of_a_tool_is_known_by_what_it_was_given(tape: Tape, wanted: str, call: int) -> None:
    """Calls that begin at once begin in any order."""
    assert build(tape, 0, tool_result=f"{wanted}=1").call == call


def test_a_call_that_cannot_be_told_from_others_is_refused() -> None:
    """No other call's result is changed in its place."""
    with pytest.raises(UsageError, match="cannot be told which recorded call of look is look#2"):
        build(tools({"x": 1}, {"x": 2}, asked=(A, B)), 0, tool_result="look#2=1")
    with pytest.raises(UsageError, match="calls look 2 times"):
        build(tools(A, B, asked=(A, B)), 0, tool_result="look=1")


def test_an_empty_tape_has_no_steps() -> None:
    """A run without steps says so."""
    with pytest.raises(UsageError, match="has no step 0: it has no steps"):
        bound(noop=True)


def test_a_damaged_step_is_refused() -> None:
    """A step whose bytes are not whole cannot be forked."""
    with pytest.raises(UsageError, match=r"step 0 is damaged \(digest\)"):
        bound(replace(CALLED, damage="digest"), noop=True)


@pytest.mark.parametrize(
    ("url", "model", "path"),
    [
        (
            "https://x.openai.azure.com/openai/deployments/chat/chat/completions?api-version=1",
            "gpt-y",
            "/openai/deployments/gpt-y/chat/completions",
        ),
        (
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-3-flash:streamGenerateContent?alt=sse",
            "models/gemini-3-pro",
            "/v1beta/models/gemini-3-pro:streamGenerateContent",
        ),
        (
            "https://aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/anthropic/models/claude:rawPredict",
            "claude-opus@1",
            "/v1/projects/p/locations/l/publishers/anthropic/models/claude-opus@1:rawPredict",
        ),
    ],
)
def test_where_the_url_names_the_model_the_request_goes_elsewhere(url: str, model: str, path: str) -> None:
    """An edit of the body would change nothing there, so the path is edited, and the body is not."""
    found = bound(exchange(url, {"messages": [], "contents": []}, None), model=model)
    assert (found.path, found.edits) == (path, ())
    assert Intervention.from_json(found.to_json()) == found


@pytest.mark.parametrize("outcome", ["cut", "failed", "in_flight", "abandoned", "cancelled"])
def test_a_reply_that_did_not_end_has_no_tool_call_to_edit(outcome: Outcome) -> None:
    """Of a cut stream the tool call is not known whole; a text, a fault or another request still fit."""
    cut = replace(CALLED, outcome=outcome)
    with pytest.raises(UsageError, match=f"step 0: the recorded response is not whole \\({outcome}\\)"):
        bound(cut, tool_input="{}")
    assert bound(cut, text="a").response is not None
    assert bound(cut, fault=500).response is not None
    assert bound(cut, set=["temperature=1"]).edits == (("temperature", 1),)
    assert bound(cut, resample=True).goes_live


def test_a_reply_that_the_agent_left_early_is_known_by_its_end() -> None:
    """A stream that the agent closed counts as whole exactly if the provider's end had come."""
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    first = {
        "id": "x",
        "model": "m",
        "choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}],
    }
    last = {"id": "x", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    parts = [f"data: {json.dumps(one)}\n\n".encode() for one in (first, last)]
    left = replace(STREAMED, outcome="closed", response=answer(b"".join(parts), SSE))
    assert bound(left, tool_input='{"a": 1}').response is not None
    with pytest.raises(UsageError, match=r"not whole \(closed\)"):
        bound(replace(left, response=answer(parts[0], SSE)), tool_input='{"a": 1}')


def test_a_step_without_a_response_takes_what_needs_none() -> None:
    """Where an error came instead of a response: a tool input has nothing to edit, a text needs nothing."""
    failed = replace(CALLED, response=None, outcome="no_response")
    with pytest.raises(UsageError, match=r"step 0: no response was recorded \(no_response\)"):
        bound(failed, tool_input="{}")
    assert bound(failed, text="a").response is not None
    assert bound(failed, noop=True).response is None
    running = replace(CALLED, response=None, outcome="in_flight")
    with pytest.raises(
        UsageError, match=r"step 0: no response was recorded \(in_flight\), so .* nothing to serve"
    ):
        bound(running, noop=True)


def test_faults_are_the_providers_own_or_a_break() -> None:
    """A status is the provider's error, a timeout has no response, a disconnect the part that came."""
    error = bound(CALLED, fault=429).response
    assert error is not None
    assert (error.status, error.header("retry-after")) == (429, "1")
    assert json.loads(error.body)["error"]["type"] == "rate_limit_error"
    timeout = bound(CALLED, fault="timeout")
    assert (timeout.error, timeout.response, timeout.label) == ("timeout", None, "fault timeout")
    cut = bound(CALLED, fault="disconnect")
    whole = CALLED.response
    assert whole is not None
    assert cut.error == "disconnect"
    assert cut.response == replace(
        whole, body=whole.chunks()[0], chunk_sizes=whole.chunk_sizes[:1], chunk_offsets_us=(5,)
    )
    single = replace(whole, chunk_sizes=(len(whole.body),), chunk_offsets_us=(5,))
    part = bound(replace(CALLED, response=single), fault="disconnect").response
    assert part is not None
    assert part.chunks() == (whole.body[: len(whole.body) // 2],)
    assert bound(replace(CALLED, response=None, outcome="no_response"), fault="disconnect").response is None
    plain = bound(SEARCH, fault=529).response
    assert plain is not None
    assert plain.status == 529


def test_noop_and_resample_hold_no_response() -> None:
    """A noop is served from the tape, and a resample goes over the network: neither carries bytes."""
    for made in (bound(CALLED, noop=True), bound(CALLED, resample=True)):
        assert (made.response, made.error, made.edits, made.label) == (None, None, (), made.kind)


def test_labels_are_short_and_on_one_line() -> None:
    """A long value is shortened in the label, and stays whole in the edit."""
    long = "many\nlines " * 30
    edit = edits.request(set={"messages[0].content": long})
    assert "\n" not in edit.label
    assert len(edit.label) < 80
    assert edit.label.endswith("…")
    assert edit.changes[0][1] == long
    assert edits.tool_input({}, tool="book").label == "tool_input book"


def test_a_request_edit_needs_an_edit() -> None:
    """An empty request edit says that a resample is the same request."""
    with pytest.raises(UsageError, match=r"resample\(\)"):
        edits.request()
    with pytest.raises(UsageError, match="is set twice in one edit"):
        edits.request(set={"a[0].b": 1, "$.a[0].b": 2})
    assert edits.FAULTS == ("429", "500", "529", "timeout", "disconnect")


@pytest.mark.parametrize(
    ("path", "asked", "says"),
    [
        (
            "/v1/embeddings",
            {"model": "e-3"},
            "it asks openai for embeddings of e-3, which is no conversation",
        ),
        ("/v2/rerank", {"model": "r-1", "query": "x"}, "it asks cohere for a ranking of r-1"),
        ("/v1/audio/speech", {"model": "tts", "input": "x"}, "it asks openai for speech of tts"),
        ("/v1/images/generations", {"model": "p", "prompt": "x"}, "it asks openai for a picture of p"),
        ("/v1beta/models/g:embedContent", {"content": {}}, "it asks gcp.gemini for embeddings of g"),
        ("/tool", {"a": 1}, "/tool is no model call of a known provider"),
    ],
)
def test_a_step_that_is_no_conversation_says_what_it_is(
    path: str, asked: dict[str, object], says: str
) -> None:
    """And which changes are possible there."""
    other = Tape(run_id="ab" * 16, exchanges=(exchange(f"http://127.0.0.1:9{path}", asked, answer({})),))
    for edit in (edits.text("x"), edits.request(system="x"), edits.request(model="x")):
        with pytest.raises(UsageError, match=f"step 0: .*{says}.*: --set PATH=VALUE") as refused:
            edit.bind(other, 0)
        assert "--response FILE, --fault and --resample work here" in str(refused.value)
        assert ("--set model=NAME" in str(refused.value)) == ("model" in asked)
    for edit in (edits.response("{}"), edits.fault(429), edits.resample()):
        assert edit.bind(other, 0).step == 0


def test_the_agent_knows_every_kind() -> None:
    """Its package names the kinds again, because it may not import the backend; none is missing.

    That the agent itself is another is no change of ours.
    """
    assert {*edits.KINDS, "agent"} == set(KINDS)
