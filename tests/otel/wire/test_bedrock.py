"""Bedrock's two forms: requests as boto3 and the Anthropic SDK send them, replies as AWS documents them."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Any

import pytest
from conversations import request_messages
from tracefork_backend.store.prices import price_of

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Request, Response
from tracefork_otel.wire.eventstream import AwsEventStream
from tracefork_otel.wire.facts import facts
from tracefork_otel.wire.framing import Event
from tracefork_otel.wire.json_edits import apply_edits
from tracefork_otel.wire.messages import Facts
from tracefork_otel.wire.registry import Call, is_model_host, load, recognise
from tracefork_otel.wire.replies import encode_error, encode_reply, system_edit, tool_results

HOST = "https://bedrock-runtime.us-east-1.amazonaws.com"
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
ARN = f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/{CLAUDE}"
CONVERSE = f"{HOST}/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"
INVOKE = f"{HOST}/model/{CLAUDE}/invoke"
STREAM = AwsEventStream()
# As boto3 sends it.
ASKED = json.dumps(
    {
        "system": [{"text": "Be brief."}, {"cachePoint": {"type": "default"}}],
        "toolConfig": {
            "tools": [
                {
                    "toolSpec": {
                        "name": "population",
                        "inputSchema": {
                            "json": {"type": "object", "properties": {"city": {"type": "string"}}}
                        },
                    }
                },
                {"cachePoint": {"type": "default"}},
            ],
            "toolChoice": {"auto": {}},
        },
        "inferenceConfig": {"maxTokens": 300},
        "messages": [
            {
                "role": "user",
                "content": [
                    {"text": "How many?"},
                    {"image": {"format": "png", "source": {"bytes": "iVBORy4uLg=="}}},
                    {
                        "document": {
                            "format": "pdf",
                            "name": "report",
                            "source": {"bytes": "JVBERi0="},
                            "citations": {"enabled": True},
                        }
                    },
                    {"document": {"format": "txt", "name": "note", "source": {"text": "Lima is big."}}},
                    {"video": {"format": "mp4", "source": {"s3Location": {"uri": "s3://b/v.mp4"}}}},
                    {"guardContent": {"text": {"text": "guarded", "qualifiers": ["query"]}}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": "Two calls.", "signature": "c2ln"}}},
                    {"reasoningContent": {"redactedContent": "aGlkZGVu"}},
                    {"text": "I look it up."},
                    {
                        "toolUse": {
                            "toolUseId": "tooluse_1",
                            "name": "population",
                            "input": {"city": "Zürich"},
                        }
                    },
                    {"toolUse": {"toolUseId": "tooluse_2", "name": "population", "input": {}}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "toolResult": {
                            "toolUseId": "tooluse_1",
                            "content": [{"json": {"people": 433989}}],
                            "status": "success",
                        }
                    },
                    {
                        "toolResult": {
                            "toolUseId": "tooluse_2",
                            "content": [
                                {"text": "no city"},
                                {"image": {"format": "png", "source": {"bytes": "eA=="}}},
                            ],
                            "status": "error",
                        }
                    },
                    {"cachePoint": {"type": "default"}},
                ],
            },
        ],
    }
).encode()
# As the Anthropic SDK sends it.
ANTHROPIC = (
    b'{"max_tokens":9,"messages":[{"role":"user","content":"hi"}],"system":"s","anthropic_version":"2026-10-21",'
    b'"anthropic_beta":["a","b"]}'
)
USAGE = {
    "inputTokens": 7,
    "outputTokens": 40,
    "totalTokens": 1347,
    "cacheReadInputTokens": 1000,
    "cacheWriteInputTokens": 300,
    "cacheDetails": [{"ttl": "1h", "inputTokens": 200}, {"ttl": "5m", "inputTokens": 100}],
}
REPLY = {
    "metrics": {"latencyMs": 1275},
    "output": {
        "message": {
            "content": [
                {"reasoningContent": {"reasoningText": {"signature": "c2ln", "text": "Hm."}}},
                {"reasoningContent": {"redactedContent": "aGlkZGVu"}},
                {"text": "I look it up."},
                {"toolUse": {"input": {"city": "Lima"}, "name": "population", "toolUseId": "tooluse_3"}},
                {
                    "citationsContent": {
                        "citations": [
                            {"title": "report", "location": {"documentPage": {"documentIndex": 0}}}
                        ],
                        "content": [{"text": "It is "}, {"text": "cited."}],
                    }
                },
            ],
            "role": "assistant",
        }
    },
    "stopReason": "tool_use",
    "usage": USAGE,
}


def delta(index: int, **said: object) -> Event:
    """One delta of a block."""
    return named("contentBlockDelta", contentBlockIndex=index, delta=said, p="abcdefgh")


def named(name: str, **said: object) -> Event:
    """An event of that name."""
    return Event(name, json.dumps(said, separators=(",", ":")).encode())


EVENTS = [
    named("messageStart", p="abc", role="assistant"),
    delta(0, reasoningContent={"text": "Hm"}),
    delta(0, reasoningContent={"text": "."}),
    delta(0, reasoningContent={"signature": "c2ln"}),
    named("contentBlockStop", contentBlockIndex=0),
    delta(1, reasoningContent={"redactedContent": "aGlkZGVu"}),
    named("contentBlockStop", contentBlockIndex=1),
    delta(2, text="I look "),
    delta(2, text="it up."),
    named("contentBlockStop", contentBlockIndex=2),
    named(
        "contentBlockStart", contentBlockIndex=3, start={"toolUse": {"name": "population", "toolUseId": "t3"}}
    ),
    delta(3, toolUse={"input": ""}),
    delta(3, toolUse={"input": '{"city": '}),
    delta(3, toolUse={"input": '"Lima"}'}),
    named("contentBlockStop", contentBlockIndex=3),
    delta(4, text="It is cited."),
    delta(4, citation={"title": "report"}),
    named("contentBlockStop", contentBlockIndex=4),
    named("messageStop", stopReason="tool_use"),
    named("metadata", metrics={"latencyMs": 9}, usage=USAGE),
]


def chunk(said: object) -> Event:
    """The chunk that carries a vendor's event."""
    return named("chunk", bytes=b64encode(json.dumps(said).encode()).decode(), p="abcd")


def streamed(events: Iterable[Event], status: int = 200) -> Response:
    """The response that streams these events."""
    cuts = STREAM.write(events)
    headers = (("content-type", "application/vnd.amazon.eventstream"), ("x-amzn-requestid", "r-1"))
    return Response(status=status, headers=headers, body=b"".join(cuts), chunk_sizes=tuple(map(len, cuts)))


def whole(said: object, status: int = 200) -> Response:
    """A response of this JSON."""
    headers = (("content-type", "application/json"),)
    return Response(status=status, headers=headers, body=json.dumps(said).encode())


def read(url: str, body: bytes, response: Response | None) -> Facts:
    """The facts of a call."""
    kind = None if response is None else response.header("content-type")
    found = facts(
        "POST", url, request=body, response=None if response is None else response.body, content_type=kind
    )
    assert found is not None
    return found


def said(found: Facts) -> list[tuple[str, str | None, str]]:
    """Kinds, names and contents of a reply."""
    return [(one.kind, one.name, one.content) for one in found.reply]


SAID = [
    ("thinking", None, "Hm."),
    ("redacted_thinking", None, ""),
    ("text", None, "I look it up."),
    ("tool_use", "population", '{"city":"Lima"}'),
    ("text", None, "It is cited."),
]


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (f"/model/{CLAUDE}/converse", CLAUDE),
        ("/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse-stream", CLAUDE),
        (f"/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2F{CLAUDE}/invoke", ARN),
        (
            f"/model/arn:aws:bedrock:us-east-1:123456789012:inference-profile%2F{CLAUDE}/invoke-with-response-stream",
            ARN,
        ),
        ("/model/amazon.titan-embed-text-v2%3A0/invoke", None),
        ("/model/stability.sd3-5-large-v1%3A0/invoke", None),
        (f"/model/{CLAUDE}/count-tokens", None),
        (f"/model/{CLAUDE}/invoke-with-bidirectional-stream", None),
    ],
)
def test_calls_are_told_by_path(path: str, model: str | None) -> None:
    """The model is in the path, plain or quoted, an id or an ARN; what makes no text is no such call."""
    form = "bedrock_converse" if "converse" in path else "bedrock_invoke"
    for host in (
        HOST,
        "https://vpce-1-abc.bedrock-runtime.us-east-1.vpce.amazonaws.com",
        "http://localhost:1",
    ):
        wanted = None if model is None else Call(form, "aws.bedrock", "chat", model)
        assert recognise("POST", host + path, b"{}") == wanted


def test_hosts() -> None:
    """Every partition's endpoints are Bedrock's."""
    for name in (
        "bedrock-runtime.eu-central-1.amazonaws.com",
        "bedrock-runtime-fips.us-gov-west-1.amazonaws.com",
        "bedrock-runtime.cn-north-1.amazonaws.com.cn",
        "bedrock-runtime.us-west-2.api.aws",
        "bedrock-mantle.us-west-2.api.aws",
    ):
        assert is_model_host(name), name
    assert not is_model_host("s3.us-east-1.amazonaws.com")


def test_a_request_of_boto3() -> None:
    """System, files, thoughts, calls and results are told apart; marks of the cache say nothing."""
    assert [(m.role, m.kind, m.name, m.content) for m in request_messages("bedrock_converse", ASKED)] == [
        ("system", "text", None, "Be brief."),
        ("user", "text", None, "How many?"),
        ("user", "image", None, "[image/png, 12 base64 characters]"),
        ("user", "document", "report", "[pdf, 8 base64 characters]"),
        ("user", "document", "note", "Lima is big."),
        ("user", "other", None, "s3://b/v.mp4"),
        ("user", "text", None, "guarded"),
        ("assistant", "thinking", None, "Two calls."),
        ("assistant", "redacted_thinking", None, ""),
        ("assistant", "text", None, "I look it up."),
        ("assistant", "tool_use", "population", '{"city":"Zürich"}'),
        ("assistant", "tool_use", "population", "{}"),
        ("user", "tool_result", "population", '{"people":433989}'),
        ("user", "tool_result", "population", "no city\n[image/png, 4 base64 characters]"),
    ]


def test_a_reply_whole_and_streamed() -> None:
    """Both say the same; cached input stands beside the rest of it on the wire, and is all input for us."""
    for response in (whole(REPLY), streamed(EVENTS)):
        found = read(CONVERSE, ASKED, response)
        assert said(found) == SAID
        assert (found.finish_reason, found.model, found.text) == (
            "tool_use",
            CLAUDE,
            "I look it up.It is cited.",
        )
        assert (found.input_tokens, found.output_tokens) == (1307, 40)
        assert (found.cached_tokens, found.cache_write_tokens, found.cache_write_1h_tokens) == (
            1000,
            300,
            200,
        )
        assert found.error_type is None
    assert read(CONVERSE, ASKED, streamed(EVENTS)).streamed


def test_a_prompt_of_the_account() -> None:
    """A prompt that Bedrock keeps is called by its ARN, with its variables in place of messages."""
    url = f"{HOST}/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aprompt%2FABCDE12345%3A1/converse"
    body = b'{"promptVariables": {"city": {"text": "Lima"}}}'
    found = read(url, body, whole(REPLY))
    assert found.model == "arn:aws:bedrock:us-east-1:123456789012:prompt/ABCDE12345:1"
    assert said(found) == SAID
    assert request_messages("bedrock_converse", body) == ()
    answer = encode_reply(Request(method="POST", url=url, body=body), None, text="Adieu.")
    assert read(url, body, answer).text == "Adieu."


def test_a_tool_that_the_server_runs() -> None:
    """Nova's search streams its result beside the call, and a picture comes as a block of its own."""
    use = {"toolUseId": "s1", "name": "nova_grounding", "type": "server_tool_use"}
    result = {"toolUseId": "s1", "type": "nova_grounding_result", "status": "success"}
    events = [
        named("messageStart", role="assistant"),
        named("contentBlockStart", contentBlockIndex=0, start={"toolUse": use}),
        delta(0, toolUse={"input": '{"q":"Lima"}'}),
        named("contentBlockStart", contentBlockIndex=1, start={"toolResult": result}),
        delta(1, toolResult=[{"json": {"hits": 1}}]),
        named("contentBlockStart", contentBlockIndex=2, start={"image": {"format": "png"}}),
        delta(2, image={"source": {"bytes": "eA=="}}),
        delta(3, text="Big."),
        named("messageStop", stopReason="end_turn"),
    ]
    wanted = [
        ("tool_use", "nova_grounding", '{"q":"Lima"}'),
        ("tool_result", "nova_grounding", '{"hits":1}'),
        ("image", None, "[image/png, 4 base64 characters]"),
        ("text", None, "Big."),
    ]
    assert said(read(CONVERSE, ASKED, streamed(events))) == wanted
    form = load("bedrock_converse")
    together = form.assemble(events)
    assert form.assemble(form.write_events({}, together, lambda text: [text])) == together


@pytest.mark.parametrize("url", [CONVERSE, INVOKE])
def test_errors(url: str) -> None:
    """An error's type is told by its body, by an exception in the stream, or not at all."""
    throttled = {"__type": "com.amazon.coral.availability#ThrottlingException", "message": "Too many"}
    assert read(url, ASKED, whole(throttled, 429)).error_type == "ThrottlingException"
    assert read(url, ASKED, whole({"message": "Too many"}, 429)).error_type == "error"
    cut = named("modelStreamErrorException", message="It broke", originalStatusCode=500)
    start = EVENTS[:8] if url == CONVERSE else [chunk({"messageStart": {"role": "assistant"}})]
    found = read(url, ASKED, streamed([*start, cut]))
    assert found.error_type == "ModelStreamErrorException"
    assert found.text == ("I look " if url == CONVERSE else "")
    assert found.finish_reason is None


@pytest.mark.parametrize("url", [CONVERSE, f"{CONVERSE}-stream", INVOKE, f"{INVOKE}-with-response-stream"])
def test_errors_are_aws_own(url: str) -> None:
    """The type of an error stands in a header; 529 is none of AWS's statuses."""
    for status, sent, kind in (
        (429, 429, "ThrottlingException"),
        (400, 400, "ValidationException"),
        (529, 503, "ServiceUnavailableException"),
        (418, 418, "ValidationException"),
    ):
        answer = encode_error(Request(method="POST", url=url, body=ASKED), status)
        assert (answer.status, answer.header("x-amzn-errortype")) == (sent, kind)
        assert list(json.loads(answer.body)) == ["message"]


def converse(stream: bool) -> Request:
    """The request of boto3, for a stream or a whole."""
    return Request(method="POST", url=CONVERSE + ("-stream" if stream else ""), body=ASKED)


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_input_is_replaced(stream: bool) -> None:
    """What does not speak of the call stays byte for byte; counts follow."""
    recorded = streamed(EVENTS) if stream else whole(REPLY)
    new = {"city": "Quito " * 20}
    answer = encode_reply(converse(stream), recorded, tool_input=new)
    found = read(CONVERSE, ASKED, answer)
    assert [json.loads(one.content) for one in found.reply if one.kind == "tool_use"] == [new]
    assert [one for one in said(found) if one[0] != "tool_use"] == [
        one for one in SAID if one[0] != "tool_use"
    ]
    assert found.output_tokens == 40 - 4 + 33
    assert answer.header("content-type") == recorded.header("content-type")
    if stream:
        old, now = list(STREAM.cut(recorded.body)), list(STREAM.cut(answer.body))
        assert now[:11] == old[:11]
        assert now[-6:-1] == old[-6:-1]
        assert tuple(map(len, now)) == answer.chunk_sizes
        again = encode_reply(converse(stream), recorded, tool_input={"city": "Lima"})
        assert '{"city": "Lima"}' in "".join(
            one.said()["delta"]["toolUse"]["input"]
            for one in STREAM.read(again.body)
            if "toolUse" in one.said().get("delta", {})
        )
    with pytest.raises(UsageError, match="does not call a tool 'other'"):
        encode_reply(converse(stream), recorded, tool_input=new, tool="other")


def test_edits_of_the_request() -> None:
    """A system prompt, and results of tools: JSON, text, or an error that is one no more."""
    request = converse(False)
    edited = json.loads(apply_edits(ASKED, [system_edit(request, "Be a poet.")]))
    assert edited["system"] == [{"text": "Be a poet."}]
    first, second = tool_results(request)
    assert [(one.name, one.call_id) for one in (first, second)] == [
        ("population", "tooluse_1"),
        ("population", "tooluse_2"),
    ]
    for given, text, parts in (
        ({"people": 1}, '{"people": 1}', [{"json": {"people": 1}}]),
        ("none", "none", [{"text": "none"}]),
        ([1], "[1]", [{"text": "[1]"}]),
    ):
        body = apply_edits(ASKED, [(second.path, second.saying(given, text)), *second.undone])
        result = json.loads(body)["messages"][2]["content"][1]["toolResult"]
        assert result == {"toolUseId": "tooluse_2", "content": parts, "status": "success"}


METRICS = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 12, "outputTokenCount": 5}}
VENDORS: dict[str, tuple[bytes, object, list[Any], str]] = {
    "amazon.nova-lite-v1:0": (
        b'{"schemaVersion":"messages-v1","system":[{"text":"s"}],"messages":[{"role":"user","content":[{"text":"hi"}]}]}',
        {
            "output": {"message": {"content": [{"text": "Hello."}], "role": "assistant"}},
            "stopReason": "end_turn",
            "usage": {"inputTokens": 12, "outputTokens": 5, "totalTokens": 17},
        },
        [
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"delta": {"text": "Hel"}, "contentBlockIndex": 0}},
            {"contentBlockDelta": {"delta": {"text": "lo."}, "contentBlockIndex": 0}},
            {"contentBlockStop": {"contentBlockIndex": 0}},
            {"messageStop": {"stopReason": "end_turn"}},
            {"metadata": {"usage": {"inputTokens": 12, "outputTokens": 5}}, **METRICS},
        ],
        "end_turn",
    ),
    "meta.llama3-1-8b-instruct-v1:0": (
        b'{"prompt":"hi","max_gen_len":512}',
        {
            "generation": "Hello.",
            "prompt_token_count": 12,
            "generation_token_count": 5,
            "stop_reason": "stop",
        },
        [
            {
                "generation": "Hel",
                "prompt_token_count": 12,
                "generation_token_count": 1,
                "stop_reason": None,
            },
            {
                "generation": "lo.",
                "prompt_token_count": None,
                "generation_token_count": 5,
                "stop_reason": "stop",
                **METRICS,
            },
        ],
        "stop",
    ),
    "mistral.mistral-7b-instruct-v0:2": (
        b'{"prompt":"hi"}',
        {"outputs": [{"text": "Hello.", "stop_reason": "stop"}]},
        [
            {"outputs": [{"text": "Hel", "stop_reason": None}]},
            {"outputs": [{"text": "lo.", "stop_reason": "stop"}], **METRICS},
        ],
        "stop",
    ),
    "amazon.titan-text-express-v1": (
        b'{"inputText":"hi"}',
        {
            "inputTextTokenCount": 12,
            "results": [{"tokenCount": 5, "outputText": "Hello.", "completionReason": "FINISH"}],
        },
        [
            {"outputText": "Hel", "index": 0, "totalOutputTextTokenCount": None, "completionReason": None},
            {
                "outputText": "lo.",
                "index": 0,
                "totalOutputTextTokenCount": 5,
                "completionReason": "FINISH",
                "inputTextTokenCount": 12,
                **METRICS,
            },
        ],
        "FINISH",
    ),
    "cohere.command-r-v1:0": (
        b'{"message":"hi"}',
        {"response_id": "r", "text": "Hello.", "generation_id": "g", "finish_reason": "COMPLETE"},
        [
            {"text": "Hel", "is_finished": False},
            {"text": "lo.", "is_finished": True, "finish_reason": "COMPLETE", **METRICS},
        ],
        "COMPLETE",
    ),
    "openai.gpt-oss-20b-1:0": (
        b'{"messages":[{"role":"user","content":"hi"}]}',
        {
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 12, "completion_tokens": 5},
        },
        [
            {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}}]},
            {"choices": [{"index": 0, "delta": {"content": "lo."}, "finish_reason": "stop"}], **METRICS},
        ],
        "stop",
    ),
    CLAUDE: (
        ANTHROPIC,
        {
            "model": "claude-sonnet-4-5-20250929",
            "id": "msg_bdrk_01",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": "Hello."}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 2, "cache_read_input_tokens": 10, "output_tokens": 5},
        },
        [
            {
                "type": "message_start",
                "message": {
                    "model": "claude-sonnet-4-5-20250929",
                    "id": "msg_bdrk_01",
                    "type": "message",
                    "role": "assistant",
                    "content": [],
                    "usage": {"input_tokens": 2, "cache_read_input_tokens": 10, "output_tokens": 1},
                },
            },
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo."}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
            {"type": "message_stop", **METRICS},
        ],
        "end_turn",
    ),
}
UNCOUNTED = ("mistral.mistral-7b", "cohere.")


@pytest.mark.parametrize("model", VENDORS)
def test_bodies_of_vendors(model: str) -> None:
    """A body is read in the vendor's form; a stream is counted by Bedrock where the vendor does not."""
    body, reply, events, reason = VENDORS[model]
    url = f"{HOST}/model/{model}/invoke"
    assert [(m.role, m.content) for m in request_messages("bedrock_invoke", body)][-1] == ("user", "hi")
    for response in (whole(reply), streamed(map(chunk, events))):
        found = read(url, body, response)
        assert (found.model, found.text, found.finish_reason) == (model, "Hello.", reason)
        uncounted = model.startswith(UNCOUNTED) and response.body[:1] == b"{"
        assert (found.input_tokens, found.output_tokens) == ((None, None) if uncounted else (12, 5))
        assert uncounted or price_of(found, at=None).usd or model.startswith("cohere.")


@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize("stream", [False, True])
def test_texts_for_vendors(model: str, stream: bool) -> None:
    """A text is written in the vendor's form; models that complete a prompt are only read."""
    body, reply, events, _ = VENDORS[model]
    url = f"{HOST}/model/{model}/invoke" + ("-with-response-stream" if stream else "")
    request = Request(method="POST", url=url, body=body)
    recorded = streamed(map(chunk, events)) if stream else whole(reply)
    if "messages" not in json.loads(body):
        with pytest.raises(UsageError, match="complete a prompt"):
            encode_reply(request, recorded, text="Adieu.")
        with pytest.raises(UsageError, match="complete a prompt"):
            system_edit(request, "s")
        assert tool_results(request) == []
        return
    for given in (recorded, None):
        found = read(url, body, encode_reply(request, given, text="Adieu. " * 9))
        assert (found.text, found.streamed) == ("Adieu. " * 9, stream)
        assert found.response_model in (None, "claude-sonnet-4-5-20250929", model)
        assert found.finish_reason in ("end_turn", "stop")
    apply_edits(body, [system_edit(request, "Be a poet.")])


def test_a_streamed_tool_input_of_a_vendor() -> None:
    """Chunks that do not speak of the call stay; Bedrock's own count of the output follows the vendor's."""
    events: list[Any] = [
        {
            "type": "message_start",
            "message": {"type": "message", "content": [], "usage": {"input_tokens": 2}},
        },
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "tool_use", "id": "toolu_bdrk_1", "name": "population", "input": {}},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "input_json_delta", "partial_json": '{"city":"Lima"}'},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop", **METRICS},
    ]
    request = Request(method="POST", url=f"{INVOKE}-with-response-stream", body=ANTHROPIC)
    recorded = streamed(map(chunk, events))
    answer = encode_reply(request, recorded, tool_input={"city": "Lima" * 20})
    found = read(INVOKE, ANTHROPIC, answer)
    assert [(one.name, json.loads(one.content)) for one in found.reply] == [
        ("population", {"city": "Lima" * 20})
    ]
    last = list(STREAM.read(answer.body))[-1].said()["bytes"]
    metrics = json.loads(b64decode(last))["amazon-bedrock-invocationMetrics"]
    assert metrics == {"inputTokenCount": 12, "outputTokenCount": found.output_tokens}
    assert found.output_tokens == 5 - 4 + 23


@pytest.mark.parametrize(
    ("model", "told", "price"),
    [
        (CLAUDE, None, 3.3),
        (ARN, None, 3.3),
        (CLAUDE, "claude-sonnet-4-5-20250929", 3.3),
        ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5-20250929", 3.0),
        (
            "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc",
            "claude-sonnet-4-5-20250929",
            3.3,
        ),
        ("arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0", None, 0.25),
        ("us.amazon.nova-pro-v1:0", None, 0.8),
        ("us.meta.llama3-3-70b-instruct-v1:0", None, 0.72),
    ],
)
def test_prices(model: str, told: str | None, price: float) -> None:
    """Ids, profiles and ARNs have Bedrock's price, and the global profile its own."""
    reply = {
        "model": told,
        "type": "message",
        "content": [],
        "usage": {"input_tokens": 10**6, "output_tokens": 0},
    }
    found = read(f"{HOST}/model/{model.replace('/', '%2F')}/invoke", ANTHROPIC, whole(reply))
    assert price_of(found, at=None).usd == pytest.approx(price)
