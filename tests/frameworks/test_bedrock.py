"""Bedrock's SDKs, unmodified: boto3 reads what is written; Anthropic's is recorded, replayed and forked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Capture
from frameworks import bedrock
from frameworks.bench import ASKED, PEOPLE, QUESTION, Bench, population
from opentelemetry.sdk.trace import TracerProvider
from tracefork_backend.store import open_store

from tracefork_otel.exchange import Request, Response
from tracefork_otel.wire.eventstream import AwsEventStream
from tracefork_otel.wire.framing import Event
from tracefork_otel.wire.json_edits import apply_edits
from tracefork_otel.wire.messages import message
from tracefork_otel.wire.replies import encode_error, encode_reply, tool_results

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
ARN = f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/{CLAUDE}"
TOOL_USE = {"city": "Zürich", "days": [1, 2]}
SAID = "Gewiss, Zürich ✈. " * 5
TOOLS = {"tools": [{"toolSpec": {"name": "population", "inputSchema": {"json": {"type": "object"}}}}]}
KEYS = {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "the-secret-key"}
BODIES: dict[str, Any] = {
    CLAUDE: {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}],
    },
    "us.amazon.nova-lite-v1:0": {"messages": [{"role": "user", "content": [{"text": "hi"}]}]},
    "openai.gpt-oss-20b-1:0": {"messages": [{"role": "user", "content": "hi"}]},
}


class Model:
    """A server whose answers a test sets, and a boto3 client of it."""

    def __init__(self) -> None:
        self.answer: Callable[[Request], Response] = live
        self.url = ""
        self.kept: list[tuple[Request, Response]] = []

    def __call__(self, request: Request) -> Response:
        """Answer, and keep both."""
        said = self.answer(request)
        self.kept.append((request, said))
        return said

    def client(self) -> Any:
        """A client that asks once."""
        from botocore.config import Config

        once = Config(retries={"total_max_attempts": 1})
        return boto3.client(
            "bedrock-runtime", region_name="us-east-1", endpoint_url=self.url, config=once, **KEYS
        )


@pytest.fixture
def model() -> Iterator[Model]:
    """A model that thinks, speaks and calls a tool."""
    made = Model()
    with bedrock.bedrock(made) as served:
        made.url = served.url
        yield made


def live(request: Request) -> Response:
    """A thought, a text and a call."""
    thought = message("assistant", "thinking", "Hm.")
    call = bedrock.call("population", **TOOL_USE)
    return bedrock.saying(request, thought, bedrock.text("Moment."), call)


def converse(client: Any, stream: bool, **more: Any) -> tuple[list[dict[str, Any]], str, dict[str, int]]:
    """The blocks, the reason and the counts that the SDK reads."""
    turn = {
        "role": "user",
        "content": [{"text": "hi"}, {"image": {"format": "png", "source": {"bytes": b"x"}}}],
    }
    asked = {"modelId": ARN, "messages": [turn], "toolConfig": TOOLS, **more}
    if not stream:
        found = client.converse(**asked)
        return found["output"]["message"]["content"], found["stopReason"], found["usage"]
    blocks: dict[int, dict[str, Any]] = {}
    reason, usage = "", {}
    for event in client.converse_stream(**asked)["stream"]:
        ((name, told),) = event.items()
        if name == "contentBlockStart":
            blocks[told["contentBlockIndex"]] = {"toolUse": {**told["start"]["toolUse"], "input": ""}}
        elif name == "contentBlockDelta":
            ((kind, piece),) = told["delta"].items()
            block = blocks.setdefault(told["contentBlockIndex"], {})
            if kind == "text":
                block["text"] = block.get("text", "") + piece
            elif kind == "toolUse":
                block["toolUse"]["input"] += piece["input"]
            else:
                block.setdefault("reasoningContent", {"reasoningText": {}})["reasoningText"].update(piece)
        elif name == "messageStop":
            reason = told["stopReason"]
        elif name == "metadata":
            usage = told["usage"]
    found = [block for _, block in sorted(blocks.items())]
    for block in found:
        if "toolUse" in block:
            block["toolUse"]["input"] = json.loads(block["toolUse"]["input"])
    return found, reason, usage


@pytest.mark.parametrize("stream", [False, True])
def test_boto3_reads_converse(model: Model, stream: bool) -> None:
    """Texts, thoughts, calls, a text instead and another input, whole and streamed, as the API's own."""
    client = model.client()
    content, reason, usage = converse(client, stream)
    assert [next(iter(block)) for block in content] == ["reasoningContent", "text", "toolUse"]
    assert (content[2]["toolUse"]["input"], reason) == (TOOL_USE, "tool_use")
    assert usage == {
        "inputTokens": 60,
        "outputTokens": 20,
        "totalTokens": 120,
        "cacheReadInputTokens": 30,
        "cacheWriteInputTokens": 10,
    }
    _, recorded = model.kept[-1]
    model.answer = lambda request: encode_reply(request, recorded, text=SAID)
    content, reason, usage = converse(client, stream)
    assert (content, reason, usage["inputTokens"]) == ([{"text": SAID}], "end_turn", 60)
    model.answer = lambda request: encode_reply(request, recorded, tool_input={"city": "東京"})
    content, reason, _ = converse(client, stream)
    assert [block.get("text") for block in content] == [None, "Moment.", None]
    assert (content[2]["toolUse"]["input"], reason) == ({"city": "東京"}, "tool_use")


@pytest.mark.parametrize("asked", BODIES)
@pytest.mark.parametrize("stream", [False, True])
def test_boto3_reads_invoke(model: Model, asked: str, stream: bool) -> None:
    """A body in the vendor's form, and chunks of one whose last counts for Bedrock."""
    client, body = model.client(), json.dumps(BODIES[asked])
    for text in (None, SAID):
        if text is not None:
            _, recorded = model.kept[-1]
            model.answer = lambda request, it=recorded: encode_reply(request, it, text=SAID)
        if not stream:
            told = json.loads(client.invoke_model(modelId=asked, body=body)["body"].read())
            assert (text or "Moment.") in json.dumps(told, ensure_ascii=False)
            continue
        events = client.invoke_model_with_response_stream(modelId=asked, body=body)["body"]
        chunks = [json.loads(event["chunk"]["bytes"]) for event in events]
        metrics = chunks[-1]["amazon-bedrock-invocationMetrics"]
        assert metrics["inputTokenCount"] > 0
        assert all("amazon-bedrock-invocationMetrics" not in chunk for chunk in chunks[:-1])
        assert (text or "Moment.")[:9] in json.dumps(chunks, ensure_ascii=False)


@pytest.mark.parametrize("status", [400, 403, 404, 424, 429, 500, 503, 529])
def test_boto3_raises_errors(model: Model, status: int) -> None:
    """An error is the client's own exception of that name, with the request's id; 529 is AWS's 503."""
    from botocore.exceptions import ClientError

    client = model.client()
    model.answer = lambda request: encode_error(request, status)
    names = {
        400: "ValidationException",
        403: "AccessDeniedException",
        404: "ResourceNotFoundException",
        424: "ModelErrorException",
        429: "ThrottlingException",
        500: "InternalServerException",
        503: "ServiceUnavailableException",
        529: "ServiceUnavailableException",
    }
    for ask in (
        lambda: converse(client, False),
        lambda: converse(client, True),
        lambda: client.invoke_model(modelId=CLAUDE, body=json.dumps(BODIES[CLAUDE])),
        lambda: client.invoke_model_with_response_stream(modelId=CLAUDE, body=json.dumps(BODIES[CLAUDE])),
    ):
        with pytest.raises(ClientError) as raised:
            ask()
        told = raised.value.response
        assert type(raised.value) is getattr(client.exceptions, names[status])
        assert told["Error"]["Code"] == names[status]
        assert told["ResponseMetadata"]["HTTPStatusCode"] == (503 if status == 529 else status)
        assert told["ResponseMetadata"]["RequestId"]


def test_boto3_raises_an_exception_of_a_stream(model: Model) -> None:
    """What is written as an exception within a stream is raised as one."""
    from botocore.exceptions import EventStreamError

    stream = AwsEventStream()
    events = [
        Event("messageStart", b'{"role":"assistant"}'),
        Event("throttlingException", b'{"message":"Slow"}'),
    ]
    cuts = stream.write(events)
    head = (("content-type", stream.content_type),)
    model.answer = lambda _: Response(
        status=200, headers=head, body=b"".join(cuts), chunk_sizes=tuple(map(len, cuts))
    )
    with pytest.raises(EventStreamError, match=r"throttlingException.*Slow"):
        converse(model.client(), True)


def test_boto3_sends_what_is_edited(model: Model) -> None:
    """A changed result of a tool is one that the SDK's own model of the API takes."""
    client = model.client()
    turns = [
        {"role": "user", "content": [{"text": "hi"}]},
        {
            "role": "assistant",
            "content": [{"toolUse": {"toolUseId": "t1", "name": "population", "input": {}}}],
        },
        {
            "role": "user",
            "content": [{"toolResult": {"toolUseId": "t1", "content": [{"text": "no"}], "status": "error"}}],
        },
    ]
    converse(client, False, messages=turns)
    request, _ = model.kept[-1]
    (found,) = tool_results(request)
    for value, text in (({"people": 1}, '{"people": 1}'), ("many", "many")):
        body = apply_edits(request.body, [(found.path, found.saying(value, text)), *found.undone])
        converse(client, False, messages=json.loads(body)["messages"])
        assert json.loads(model.kept[-1][0].body)["messages"] == json.loads(body)["messages"]


def clerk(request: Request) -> Response:
    """Asks the tool for each city in turn, one a call, then answers with what it was told."""
    told = [
        part["text"] if isinstance(part, dict) else part
        for turn in json.loads(request.body)["messages"]
        if isinstance(turn["content"], list)
        for block in turn["content"]
        if block.get("type") == "tool_result"
        for part in ([block["content"]] if isinstance(block["content"], str) else block["content"])
    ]
    if len(told) < len(ASKED):
        call = bedrock.call("population", city=ASKED[len(told)])
        return bedrock.saying(request, bedrock.text("I look it up."), call)
    return bedrock.saying(request, bedrock.text(" and ".join(told)))


def agents(url: str) -> dict[str, Callable[[], str]]:
    """An agent by each of the ways to ask that the Anthropic SDK has."""
    import anthropic

    options: Any = {
        "aws_region": "us-east-1",
        "aws_access_key": "AKIAEXAMPLE",
        "aws_secret_key": "the-secret-key",
        "base_url": url,
        "max_retries": 0,
    }
    tool: Any = {
        "name": "population",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }

    def turn(messages: list[Any], content: Any) -> list[Any]:
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": population(block.input["city"])}
            for block in content
            if block.type == "tool_use"
        ]
        messages += [{"role": "assistant", "content": [block.to_dict() for block in content]}]
        messages += [{"role": "user", "content": results}] if results else []
        return results

    def asked(messages: list[Any]) -> Any:
        return {"model": CLAUDE, "max_tokens": 99, "messages": messages, "tools": [tool]}

    def whole() -> str:
        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        with anthropic.AnthropicBedrock(**options) as client:
            while turn(messages, (found := client.messages.create(**asked(messages))).content):
                pass
        return found.content[0].text

    def streamed() -> str:
        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        with anthropic.AnthropicBedrock(**options) as client:
            while True:
                with client.messages.stream(**asked(messages)) as stream:
                    found = stream.get_final_message()
                if not turn(messages, found.content):
                    return found.content[0].text

    async def asynchronously() -> str:
        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        async with anthropic.AsyncAnthropicBedrock(**options) as client:
            while True:
                async with client.messages.stream(**asked(messages)) as stream:
                    found = await stream.get_final_message()
                if not turn(messages, found.content):
                    return found.content[0].text

    return {"whole": whole, "streamed": streamed, "async streamed": lambda: asyncio.run(asynchronously())}


def conversing(request: Request) -> Response:
    """What `clerk` does, asked in the form of Converse."""
    told = [
        part["text"]
        for turn in json.loads(request.body)["messages"]
        for block in turn["content"]
        if "toolResult" in block
        for part in block["toolResult"]["content"]
    ]
    if len(told) < len(ASKED):
        call = bedrock.call("population", city=ASKED[len(told)])
        return bedrock.saying(request, bedrock.text("I look it up."), call)
    return bedrock.saying(request, bedrock.text(" and ".join(told)))


@pytest.mark.parametrize("stream", [False, True])
def test_an_agent_of_boto3(capture: Capture, provider: TracerProvider, stream: bool) -> None:
    """Its loop by Converse is recorded whole, without its key; SQL reads it, the run replays and forks."""
    model = Model()

    def agent() -> str:
        client = model.client()
        messages: list[Any] = [{"role": "user", "content": [{"text": QUESTION}]}]
        while True:
            content, _, _ = converse(client, stream, modelId=CLAUDE, messages=messages)
            messages.append({"role": "assistant", "content": content})
            results = [
                {
                    "toolResult": {
                        "toolUseId": block["toolUse"]["toolUseId"],
                        "content": [{"text": population(block["toolUse"]["input"]["city"])}],
                    }
                }
                for block in content
                if "toolUse" in block
            ]
            if not results:
                return content[0]["text"]
            messages.append({"role": "user", "content": results})

    with bedrock.bedrock(conversing) as served:
        model.url = served.url
        bench = Bench(served, capture, provider)  # type: ignore[arg-type]
        run = bench.record(agent)
        for secret in ("AKIAEXAMPLE", "the-secret-key", "AWS4-HMAC-SHA256"):
            assert all(secret not in repr(exchange) for exchange in run.exchanges)
        bench.holds(run, agent)
    with open_store(capture.store) as store:
        asked = f"from exchanges where run_id = '{run.run_id}' order by step"
        rows = store.sql(
            f"select provider, operation, model, streamed, input_tokens, cost_usd > 0 {asked}"
        ).fetchall()
    assert rows == [("aws.bedrock", "chat", CLAUDE, stream, 100, True)] * 3


@pytest.mark.parametrize("way", ["whole", "streamed", pytest.param("async streamed", marks=pytest.mark.slow)])
def test_an_agent_of_anthropic_on_bedrock(capture: Capture, provider: TracerProvider, way: str) -> None:
    """Its loop is recorded whole, without its key; SQL reads it, the run replays exactly and forks."""
    with bedrock.bedrock(clerk) as served:
        agent = agents(served.url)[way]
        bench = Bench(served, capture, provider)  # type: ignore[arg-type]
        run = bench.record(agent)
        assert all("AKIAEXAMPLE" not in repr(exchange) for exchange in run.exchanges)
        bench.holds(run, agent)
    with open_store(capture.store) as store:
        asked = f"from exchanges where run_id = '{run.run_id}' order by step"
        rows = store.sql(
            f"select provider, operation, model, streamed, input_tokens, cached_tokens, cost_usd > 0 {asked}"
        ).fetchall()
        told = store.sql(
            f"select role, kind, name, content from messages where run_id = '{run.run_id}' and step = 2"
            " order by position"
        ).fetchall()
    assert rows == [("aws.bedrock", "chat", CLAUDE, "streamed" in way, 100, 30, True)] * 3
    assert told == [
        ("user", "text", None, QUESTION),
        *(
            row
            for city in ASKED
            for row in (
                ("assistant", "text", None, "I look it up."),
                ("assistant", "tool_use", "population", json.dumps({"city": city}, separators=(",", ":"))),
                ("user", "tool_result", "population", PEOPLE[city]),
            )
        ),
        ("assistant", "text", None, " and ".join(PEOPLE[city] for city in ASKED)),
    ]


def test_an_exception_of_a_stream_on_bedrock(model: Model) -> None:
    """Anthropic's SDK raises what is written as an exception within a stream."""
    import anthropic

    stream = AwsEventStream()
    cuts = stream.write([Event("throttlingException", b'{"message":"Slow down"}')])
    head = (("content-type", stream.content_type),)
    model.answer = lambda _: Response(
        status=200, headers=head, body=b"".join(cuts), chunk_sizes=tuple(map(len, cuts))
    )
    client = anthropic.AnthropicBedrock(
        aws_region="us-east-1", aws_access_key="a", aws_secret_key="b", base_url=model.url, max_retries=0
    )
    asked: Any = {"model": CLAUDE, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    with client:
        with pytest.raises(anthropic.APIStatusError, match="Slow down"):
            list(client.messages.create(**asked, stream=True))
        model.answer = lambda request: encode_error(request, 429)
        with pytest.raises(anthropic.RateLimitError, match="Too many requests"):
            client.messages.create(**asked)
