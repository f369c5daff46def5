"""Trajectories that others wrote into files: OTLP as the Collector writes it, lists of OpenAI's messages."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Headers, Request, Response
from tracefork_otel.recording.process import process_started
from tracefork_otel.redaction import redact
from tracefork_otel.redaction.redact import Redactor
from tracefork_otel.settings import Settings
from tracefork_otel.store.records import ExchangeStarted, SpanRecord
from tracefork_otel.store.wal import Wal
from tracefork_otel.tape.fidelity import FIDELITY

from ..store import open_store
from .otlp import Refused, parse, spans_of
from .received import Records, records_of, written

Json: TypeAlias = dict[str, Any]

_LISTS = ("messages", "traj", "trajectory", "history", "conversation")
"""Where an object has its messages, by the names that benchmarks and fine-tuning files use."""
_NAMES = ("name", "task_id", "id", "question_ID", "instance_id")
_USERS = frozenset({"user", "human", "environment", "observation"})
_OTHERS = frozenset({"system", "developer", "tool", "function"})
_URL = "https://unknown/v1/chat/completions"
_JSON: Headers = (("content-type", "application/json"),)
_APART_NS = 1_000_000
"""Between two steps of a file that tells no times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What an import of others' trajectories did."""

    runs: tuple[str, ...]
    """Their ids, also of those that were there already."""
    new: int
    """Runs of which the store had nothing."""
    steps: int
    """Calls of models that were added."""
    left_out: tuple[str, ...]
    """Spans that could not be taken, and why."""


def import_trajectories(store: Path, path: Path, form: Literal["otlp", "openai-messages"]) -> Taken:
    """Write the trajectories of a file into the store, as runs to be read, queried and shown.

    They are told by messages (`fidelity = messages`), so they are not replayed. A second import adds nothing.
    Raises UsageError where the file is no such thing; it names the line or the place.
    """
    redactor = redact.of(Settings.from_env())
    left_out: list[str] = []
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    read = _otlp(data, path, redactor, left_out) if form == "otlp" else _of_messages(data, path, redactor)
    records = list(read)
    runs = tuple(dict.fromkeys(record.trace_id for record in records if hasattr(record, "trace_id")))
    with open_store(store) as opened:
        kept = {row["span_id"] for row in opened.rows(_KEPT, {"runs": list(runs)})} if runs else set[str]()
        there = {run for run in runs if opened.has_run(run)}
    fresh = [record for record in records if record.span_id not in kept]
    if fresh:
        # By `otlp`, as what comes from others never joins a run that was recorded here.
        wal = Wal(store, process_started(mode="record", via="otlp", argv=("tape", "import", path.name)))
        try:
            for record in fresh:
                wal.append(record)
        except BaseException:
            wal.discard()
            raise
        wal.close()
        open_store(store).close()  # the next opener seals what is left
    return Taken(
        runs=runs,
        new=len(set(runs) - there),
        steps=sum(isinstance(record, ExchangeStarted) for record in fresh),
        left_out=tuple(left_out),
    )


_KEPT = (
    "select span_id from spans where list_contains($runs, trace_id)"
    " union select span_id from exchanges where list_contains($runs, trace_id)"
)


def _otlp(data: bytes, path: Path, redactor: Redactor, left_out: list[str]) -> Iterator[Any]:
    for where, body, form in _requests(data, path):
        try:
            message = parse(body, form)
        except Refused as why:
            raise UsageError(f"{where}: {why}") from why
        for span, _ in spans_of(message):
            if isinstance(span, str):
                left_out.append(span)
                continue
            yield from records_of(span, redactor)


def _requests(data: bytes, path: Path) -> Iterator[tuple[str, bytes, Literal["json", "protobuf"]]]:
    """Give each request of the file: one of protobuf, one of JSON, or one of JSON a line."""
    if data.lstrip()[:1] != b"{":
        yield str(path), data, "protobuf"
        return
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        for number, line in enumerate(data.splitlines(), 1):
            if line.strip():
                yield f"{path}: line {number}", line, "json"
        return
    yield str(path), data, "json"


def _of_messages(data: bytes, path: Path, redactor: Redactor) -> Iterator[Any]:
    same: Counter[str] = Counter()
    now = time.time_ns()
    for number, (where, found) in enumerate(_found(data, path)):
        messages, fields = _messages(found, where)
        text = json.dumps(found, sort_keys=True, ensure_ascii=False)
        same[text] += 1
        seed = hashlib.sha256(f"{text}\0{same[text]}".encode("utf-8", "surrogatepass")).hexdigest()
        named = next((str(fields[key]) for key in _NAMES if fields.get(key) not in (None, "")), None)
        name = f"{path.stem} {named}" if named is not None else f"{path.stem} {number}"
        yield from _run(
            messages, fields, name=name, seed=seed, began=now + number * _APART_NS, redactor=redactor
        )


def _found(data: bytes, path: Path) -> Iterator[tuple[str, Any]]:
    """Give each trajectory with its place: the file's one, one of its list, one a line."""
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError) as error:
        lines = [line for line in data.splitlines() if line.strip()]
        if len(lines) < 2:
            raise UsageError(f"{path}: this is no JSON: {error}") from error
        for number, line in enumerate(data.splitlines(), 1):
            if line.strip():
                try:
                    yield f"{path}: line {number}", json.loads(line)
                except (ValueError, RecursionError) as wrong:
                    raise UsageError(f"{path}: line {number}: this is no JSON: {wrong}") from wrong
        return
    if isinstance(whole, list) and not _is_message(next(iter(cast("list[Any]", whole)), None)):
        for number, one in enumerate(cast("list[Any]", whole)):
            yield f"{path}: [{number}]", one
    else:
        yield str(path), whole


def _is_message(found: Any) -> bool:
    return isinstance(found, dict) and "role" in found


def _messages(found: Any, where: str) -> tuple[list[Json], Json]:
    """Return the messages of a trajectory, and its other fields; UsageError for anything else."""
    fields: Json = {}
    if isinstance(found, dict):
        given = cast(Json, found)
        key = next((one for one in _LISTS if isinstance(given.get(one), list)), None)
        if key is None:
            raise UsageError(f"{where}: there are no messages: none of {', '.join(_LISTS)} is a list of them")
        fields = {name: value for name, value in given.items() if name != key}
        found, where = given[key], f"{where}.{key}"
    if not isinstance(found, list):
        raise UsageError(f"{where}: this is no list of messages")
    for number, one in enumerate(cast("list[Any]", found)):
        if not isinstance(one, dict) or not isinstance(cast(Json, one).get("role"), str):
            raise UsageError(f"{where}[{number}]: this is no message: it has no role that is a text")
    return cast("list[Json]", found), fields


def _run(
    messages: list[Json], fields: Json, *, name: str, seed: str, began: int, redactor: Redactor
) -> Iterator[Any]:
    """Give the records of one trajectory: what the model said is a call each, asked with all before it."""
    at, model = began, fields.get("model")
    calls: dict[str, Json] = {}

    def span(of: str, name: str, kind: str, attributes: Mapping[str, object], ended: int) -> SpanRecord:
        return SpanRecord(
            trace_id=seed[:32],
            span_id=_id(seed, of),
            parent_span_id=None if of == "root" else _id(seed, "root"),
            name=redactor.text(name),
            kind=kind,
            started_ns=began if of == "root" else at,
            ended_ns=ended,
            service="import",
            scope="tracefork.import",
            attributes=redactor.attributes(attributes),
        )

    for number, message in enumerate(messages):
        at += _APART_NS
        role = message["role"]
        if role in ("tool", "function"):
            call = calls.get(str(message.get("tool_call_id")), {})
            name_of_tool, told = _tool(message, call)
            yield span(f"{number}", f"execute_tool {name_of_tool}", "INTERNAL", told, at)
        elif role not in _USERS and role not in _OTHERS:
            said = span(f"{number}", f"chat {model or ''}".strip(), "CLIENT", {}, at + _APART_NS // 2)
            yield from _call(messages, number, model, said, redactor)
            calls |= {str(one.get("id")): one for one in _dicts(message.get("tool_calls"))}
    other = {
        f"import.{key}": value if isinstance(value, str | int | float | bool) else _dumped(value)
        for key, value in fields.items()
    }
    named = {"gen_ai.operation.name": "invoke_agent", **other}
    yield span("root", name, "INTERNAL", named, at + _APART_NS)


def _call(messages: list[Json], number: int, model: object, span: SpanRecord, redactor: Redactor) -> Records:
    """Return the exchange in which the model said a message; each message is as it was in the file."""
    said = messages[number]
    named = {"model": model if isinstance(model, str) and model else "unknown"}
    role = said["role"]
    # Frameworks of several agents write an agent's name where its role would be.
    answer = said if role == "assistant" else {**said, "role": "assistant", "name": said.get("name", role)}
    ended = "tool_calls" if said.get("tool_calls") else "stop"
    request = _dumped({**named, "messages": messages[:number]}).encode("utf-8", "surrogatepass")
    choice = {"index": 0, "message": answer, "finish_reason": ended}
    response = _dumped({"object": "chat.completion", **named, "choices": [choice]}).encode(
        "utf-8", "surrogatepass"
    )
    return written(
        span,
        redactor,
        Request(method="POST", url=_URL, headers=_JSON, body=request),
        Response(
            status=200, headers=_JSON, body=response, chunk_sizes=(len(response),), chunk_offsets_us=(0,)
        ),
        outcome="complete",
        more={FIDELITY: "messages"},
        seq=number,
        error_type=None,
    )


def _tool(message: Json, call: Json) -> tuple[str, Mapping[str, object]]:
    """Return the name of the tool whose result a message is, and what its span says."""
    function = call.get("function")
    asked = cast(Json, function) if isinstance(function, dict) else {}
    name = str(message.get("name") or asked.get("name") or "tool")
    arguments = asked.get("arguments", "{}")
    content = message.get("content")
    return name, {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "gen_ai.tool.call.arguments": arguments if isinstance(arguments, str) else _dumped(arguments),
        "gen_ai.tool.call.result": content if isinstance(content, str) else _dumped(content),
    }


def _dicts(found: Any) -> list[Json]:
    return (
        [one for one in cast("list[Any]", found) if isinstance(one, dict)] if isinstance(found, list) else []
    )


def _id(seed: str, of: str) -> str:
    return hashlib.sha256(f"{seed}/{of}".encode()).hexdigest()[:16]


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
