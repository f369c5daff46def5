"""Every wire form keeps one contract; adding a form is filling in what this file asks for.

1. Write `tracefork_otel/wire/FORM.py`: what `wire/interface.py` says, as functions of a module. Where replies
   stream by other rules than server-sent events, write a framing too (`wire/framing.py`).
2. Name it in `wire/forms.py`: a line with its paths, each with the provider that it belongs to on a host that
   is not known. Name its hosts in `wire/hosts.py`.
3. Put one conversation as its provider sends it into `samples/FORM.json`: a request with a system prompt, a
   tool call and the tool's result, and what is to be read of it (`asked`); a reply that says a text and calls
   a tool, whole and as a stream, and what is to be read of it (`said`, `told`, `counted`); an error in a
   stream, and the type that is read of it; why a reply that only says a text ended (`ends`); and what a
   request says that offers two tools (`two_tools`), and one without the first of them (`second_tool`).

   A form without tools says so (`"tools": false`), and has a prompt for a request; one without streams has
   `"streamed": []` and `"stream": []`, and no `FRAMINGS`. A request names its model, in its path or as the
   outermost `model` of its body, and a reply counts its tokens.
   Every reply is one for `is_reply`, also a whole or a finished stream that says nothing.

Then this file holds the form to everything else: cuts, errors, edits, any JSON, and writing what it reads. An
SDK that takes a transport of ours is asked in `test_forms_sdks.py`.
What only one provider sends has a file of its own, `test_FORM.py`.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import asdict, replace
from types import ModuleType
from typing import Any

import pytest
from conversations import (
    answered,
    asked,
    calls,
    dumped,
    each,
    each_stream,
    each_way,
    each_way_with_tools,
    each_with_tools,
    each_with_turns,
    events,
    framing,
    has_tools,
    messages_by,
    read,
    request_messages,
    sample,
    told,
)
from hypothesis import given
from hypothesis import strategies as st

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Response
from tracefork_otel.wire.framing import Event
from tracefork_otel.wire.growing import Growing
from tracefork_otel.wire.interface import WireForm
from tracefork_otel.wire.json_edits import apply_edits
from tracefork_otel.wire.messages import Asked, Message, Reply, Usage
from tracefork_otel.wire.registry import load, recognise
from tracefork_otel.wire.removing import system_texts, taken_out, tools_of
from tracefork_otel.wire.replies import encode_body, encode_error, encode_reply, system_edit, tool_results
from tracefork_otel.wire.writing import Ids, deltas


@each
def test_a_request_is_read(name: str) -> None:
    """System prompt, question, tool call and result are the sample's; a call and its result share an id."""
    form, given = load(name), sample(name)
    messages = form.read_request(given["request"]).messages
    assert told(messages) == given["asked"]
    ids = [one.call_id for one in messages if one.kind in ("tool_use", "tool_result")]
    assert not has_tools(name) or ids[0] == ids[1] is not None
    call = recognise("POST", given["url"], dumped(given["request"]))
    assert call is not None
    assert call.model


@each_with_turns
def test_a_turn_that_is_sent_again_is_not_read_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation that grows turn by turn reads as each request alone does, and each turn of it once."""
    form, given = load(name), sample(name)["request"]
    key = str(form.TURNS)
    turns, sent = 3 * given[key], [{**given, key: 3 * given[key][:1]}]
    for at in range(1, len(turns) + 1):
        # What stands behind the turns comes and goes, and the last turn may be marked in one request alone.
        marked = [{"mark": 1, **turns[at - 1]}] if at % 3 == 0 else turns[at - 1 : at]
        sent.append({**given, key: [*turns[: at - 1], *marked], "temperature": at})
    wanted = [request_messages(name, dumped(request)) for request in sent]
    counts: list[int] = []
    whole = form.read_request

    def counted(request: dict[str, Any]) -> Asked:
        counts.append(len(request[key]))
        return whole(request)

    monkeypatch.setattr(form, "read_request", counted)
    growing: Growing[Asked] = Growing()
    assert [messages_by(growing, name, dumped(request)) for request in sent] == wanted
    assert max(counts[1:]) <= 2


@each
@given(data=st.data())
def test_requests_that_share_a_beginning_read_as_alone(name: str, data: st.DataObject) -> None:
    """Whatever follows on a request, none is read as another one's."""
    odd = st.recursive(
        st.none() | st.sampled_from([*sorted(scalars(sample(name)["request"])), ""]),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=9,
    )
    growing: Growing[Asked] = Growing()
    request = sample(name)["request"]
    for _ in range(6):
        request = data.draw(st.sampled_from([request, sample(name)["request"]]))
        for key in [key for key, value in request.items() if isinstance(value, list)]:
            request = {**request, key: request[key] + data.draw(st.sampled_from([[], request[key]]))}
        request = bent(request, data, odd)
        body = dumped(request)
        body = data.draw(st.sampled_from([body, body[:-9] + body[-8:], body[:-1] + b',"x":[]}']))
        assert messages_by(growing, name, body) == request_messages(name, body)


@each_way
def test_a_reply_is_read_alike_however_it_came(name: str, at: int | None) -> None:
    """Text, tool call, usage, model, id and end are the sample's, whole and streamed."""
    given, found = sample(name), read(asked(name, at), answered(name, at))
    assert told(found.reply) == given["said"]
    assert found.text == "".join(content for _, kind, _, content in given["said"] if kind == "text")
    assert (found.form, found.streamed, found.error_type) == (name, at is not None, None)
    assert [found.response_model, found.response_id, found.finish_reason] == [
        given["told"][key] for key in ("model", "response_id", "finish_reason")
    ]
    counts = {key: value for key in asdict(Usage()) if (value := getattr(found, key, None)) is not None}
    assert counts == given["counted"]


@pytest.mark.slow
@each_way
def test_a_cut_reply_is_a_prefix(name: str, at: int | None) -> None:
    """Cut at any byte, what is read begins like the whole, and grows with what came."""
    whole, response = read(asked(name, at), answered(name, at)), answered(name, at)
    longest = ""
    for end in range(len(response.body)):
        cut = Response(status=200, headers=response.headers, body=response.body[:end])
        found = read(asked(name, at), cut)
        assert whole.text.startswith(found.text)
        assert len(found.text) >= len(longest)
        assert len(found.reply) <= len(whole.reply)
        longest = found.text
    assert longest == ("" if at is None else whole.text)
    assert read(asked(name, at), None).reply == ()


@each_way
@pytest.mark.parametrize("status", [429, 500, 529])
def test_an_error_is_written_and_read(name: str, at: int | None, status: int) -> None:
    """An error has its type, a status that clients try again, and says nothing else."""
    found = encode_error(asked(name, at), status)
    assert found.status in (status, 503)
    assert found.status != 429 or found.header("retry-after")
    facts_found = read(asked(name, at), found)
    assert facts_found.error_type
    assert facts_found.reply == ()


@each_stream
def test_an_error_in_a_stream_keeps_what_came_before(name: str, at: int) -> None:
    """A stream that breaks off with an error tells the error, and the text so far."""
    kind, data = sample(name)["stream_error"]
    said = events(name)
    half = len(said) // 2
    body = b"".join(framing(name, at).write([*said[:half], Event(kind, dumped(data))]))
    response = Response(status=200, headers=answered(name, at).headers, body=body)
    found = read(asked(name, at), response)
    assert found.error_type == sample(name)["error_type"]
    assert found.text
    assert found.finish_reason != sample(name)["told"]["finish_reason"]


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)


@each_way
@given(text=TEXT)
def test_any_text_is_written_and_read_back(name: str, at: int | None, text: str) -> None:
    """A text in place of the recorded reply reads as that text, by the same way, with plausible usage."""
    recorded = answered(name, at)
    made = encode_reply(asked(name, at), recorded, text=text)
    assert made == encode_reply(asked(name, at), recorded, text=text)
    found = read(asked(name, at), made)
    assert (found.text, found.streamed) == (text, at is not None)
    assert {one.kind for one in found.reply} <= {"text"}
    assert found.finish_reason == sample(name)["ends"]
    assert found.response_model == sample(name)["told"]["model"]
    identity = sample(name)["told"]["response_id"]
    assert identity is None or found.response_id != identity
    assert found.input_tokens == sample(name)["counted"]["input_tokens"]
    assert found.output_tokens
    assert encode_body(asked(name, at), recorded, made.body).body == made.body


INPUTS = st.dictionaries(TEXT, st.recursive(st.none() | st.integers(-9, 9) | TEXT, st.lists), max_size=3)


@each_way_with_tools
@given(given_input=INPUTS)
def test_any_tool_input_is_written_and_read_back(
    name: str, at: int | None, given_input: dict[str, Any]
) -> None:
    """A tool call's input is replaced where it stands; the rest of the reply stays as it was."""
    made = encode_reply(asked(name, at), answered(name, at), tool_input=given_input, tool="note")
    before, after = read(asked(name, at), answered(name, at)), read(asked(name, at), made)
    assert calls(after) == [
        (named, given_input if named == "note" else value) for named, value in calls(before)
    ]
    assert [one for one in after.reply if one.name != "note"] == [
        one for one in before.reply if one.name != "note"
    ]
    assert after.finish_reason == before.finish_reason
    assert after.input_tokens == before.input_tokens


@each_way_with_tools
def test_the_recorded_input_leaves_the_reply_as_it_was(name: str, at: int | None) -> None:
    """An input equal to the recorded one changes nothing but the reply's id, also without the tool's name."""
    recorded = read(asked(name, at), answered(name, at))
    first = calls(recorded)[0][1]
    found = read(asked(name, at), encode_reply(asked(name, at), answered(name, at), tool_input=first))
    fresh = {"response_id": None, "stored_id": None}
    assert replace(found, **fresh) == replace(recorded, **fresh)


@each_way
def test_usage_moves_by_what_changed(name: str, at: int | None) -> None:
    """A text counts for itself alone; an edited call moves the output by its own length."""
    recorded, counted = answered(name, at), sample(name)["counted"]
    found = read(asked(name, at), encode_reply(asked(name, at), recorded, text="x" * 4000))
    assert (found.input_tokens, found.output_tokens) == (counted["input_tokens"], 1000)
    assert (found.cached_tokens or 0) == counted.get("cached_tokens", 0)
    if has_tools(name):
        longer = encode_reply(asked(name, at), recorded, tool_input={"x": "y" * 400}, tool="note")
        assert 90 < (read(asked(name, at), longer).output_tokens or 0) - counted["output_tokens"] < 110


@each_way
def test_ids_follow_from_request_and_content(name: str, at: int | None) -> None:
    """Another text, another input or another request has another id, of the same kind."""
    request, recorded = asked(name, at), answered(name, at)
    other = replace(request, body=request.body.replace("Zürich".encode(), b"Oslo"))
    made = [encode_reply(request, recorded, text="a"), encode_reply(request, recorded, text="b")]
    made.append(encode_reply(other, recorded, text="a"))
    if has_tools(name):
        made += [encode_reply(request, recorded, tool_input={"x": x}, tool="note") for x in (2, 3)]
    ids = [read(request, one).response_id for one in (recorded, *made)]
    if ids[0] is None:
        assert set(ids) == {None}
    else:
        assert len(set(ids)) == len(ids)
        kind = re.match(r"[a-z]+[-_]|", ids[0])
        assert kind is not None
        assert all((one or "").startswith(kind[0]) for one in ids)


@each_way
def test_headers_are_the_recorded_ones(name: str, at: int | None) -> None:
    """What the provider sent is kept, but nothing that speaks of the recorded bytes; a chunk is an event."""
    recorded = answered(name, at)
    stale = (("content-encoding", "identity"), ("Transfer-Encoding", "chunked"), ("retry-after", "9"))
    recorded = replace(recorded, headers=(*recorded.headers, ("x-kept", "yes"), *stale))
    made = encode_reply(asked(name, at), recorded, text="Flug TK-12 ist frei. " * 4)
    assert made.headers == (*answered(name, at).headers, ("x-kept", "yes"))
    assert sum(made.chunk_sizes) == len(made.body)
    assert len(made.chunk_offsets_us) == len(made.chunk_sizes)
    if at is not None:
        by = framing(name, at)
        assert list(made.chunks()) == list(by.write(list(by.read(made.body))))


@each_way
def test_a_text_needs_no_recorded_reply(name: str, at: int | None) -> None:
    """Where no response came, or an error, or part of one, the text is still a whole answer."""
    request, recorded = asked(name, at), answered(name, at)
    cut = replace(recorded, body=recorded.body[: len(recorded.body) // 3], chunk_sizes=())
    for before in (None, encode_error(request, 529), cut):
        made = encode_reply(request, before, text="Da.")
        found = read(request, made)
        assert (made.status, found.text, found.streamed) == (200, "Da.", at is not None)
        assert found.finish_reason == sample(name)["ends"]
        assert (found.input_tokens or 0) > 0
        assert found.output_tokens == 1
        assert made.header("x-should-retry") is made.header("x-amzn-errortype") is None
    named = load(name).REQUEST_ID
    assert named is None or encode_reply(request, None, text="Da.").header(named)


@each_way
def test_a_reply_given_as_json_comes_as_asked(name: str, at: int | None) -> None:
    """A whole reply is streamed to who asked for a stream, and says the same; else it stays byte by byte."""
    whole = answered(name, None)
    made = encode_body(asked(name, at), answered(name, at), whole.body)
    found, wanted = read(asked(name, at), made), read(asked(name, None), whole)
    assert told(found.reply) == told(wanted.reply)
    assert replace(found, reply=(), streamed=False, model=None) == replace(wanted, reply=(), model=None)
    if at is None:
        assert made.body == whole.body


@each_way
def test_a_body_that_its_client_could_not_read_is_refused(name: str, at: int | None) -> None:
    """Invalid JSON, another form's reply, an error, and a stream for who asked for JSON are no replies."""
    request = asked(name, at)
    with pytest.raises(UsageError, match="not valid JSON"):
        encode_body(request, None, b'{"content": [')
    for wrong in (b'{"foo": 1}', b"[]", b'{"mind": []}', encode_error(request, 429).body):
        with pytest.raises(UsageError, match=r"no reply in this provider's format|response holds"):
            encode_body(request, None, wrong)
    if at is None and sample(name)["streamed"]:
        with pytest.raises(UsageError, match="asked for JSON"):
            encode_body(request, None, answered(name, 0).body)


@each_way
def test_a_reply_without_a_tool_call_has_no_input(name: str, at: int | None) -> None:
    """An input for a tool that was not called, a text, an error, or no reply at all is refused."""
    request = asked(name, at)
    if has_tools(name):
        with pytest.raises(UsageError, match=r"does not call a tool 'gone'; it calls .*note"):
            encode_reply(request, answered(name, at), tool_input={}, tool="gone")
    for before in (encode_reply(request, answered(name, at), text="x"), encode_error(request, 500)):
        with pytest.raises(UsageError, match="calls no tool"):
            encode_reply(request, before, tool_input={})
    with pytest.raises(UsageError, match="no recorded reply"):
        encode_reply(request, None, tool_input={})


@each
def test_half_a_character_is_refused(name: str) -> None:
    """Text that UTF-8 cannot hold is a mistake said before anything runs."""
    with pytest.raises(UsageError, match="not valid Unicode at character 1"):
        encode_reply(asked(name, None), None, text="a\ud800")


@each_way_with_tools
def test_the_system_prompt_and_a_result_are_edited_in_place(name: str, at: int | None) -> None:
    """The edits that change the system prompt and a tool's result are read in the edited request."""
    request = asked(name, at)
    path, value = system_edit(request, "Be long.")
    (result,) = tool_results(request)
    assert result.name == "weather"
    edits = [(path, value), (result.path, result.saying("Sonne", "Sonne")), *result.undone]
    body = json.loads(apply_edits(request.body, edits))
    wanted = [
        [role, kind, named, {"Be brief.": "Be long.", "Regen": "Sonne"}.get(content, content)]
        for role, kind, named, content in sample(name)["asked"]
    ]
    assert told(load(name).read_request(body).messages) == wanted


@each_way
def test_a_system_prompt_is_taken_out_whole_and_in_sections(name: str, at: int | None) -> None:
    """Without its one section a request says no system prompt; without one of two it says the other."""
    request = asked(name, at)
    said = [content for role, _, _, content in sample(name)["asked"] if role in ("system", "developer")]
    texts = [one.what for one in system_texts(request)]
    assert texts == said
    for text in texts:
        bare = apply_edits(
            request.body, taken_out(request, "sections", {"sections": [[text, 1]], "level": "items"})
        )
        assert not [one for one in load(name).read_request(json.loads(bare)).messages if one.role == "system"]
        twice = replace(
            request, body=apply_edits(request.body, [system_edit(request, f"{text}\n\nBe kind.")])
        )
        other = taken_out(twice, "sections", {"sections": [[text, 1]], "level": "items"})
        kept = load(name).read_request(json.loads(apply_edits(twice.body, other))).messages
        assert [one.content for one in kept if one.role in ("system", "developer")] == ["Be kind."]


@each_with_tools
def test_a_tool_is_taken_out_with_what_names_it(name: str) -> None:
    """The other tool stays; with the last go the members that speak of tools, and nothing else changes."""
    request = asked(name, None)
    plain = {key: value for key, value in json.loads(request.body).items() if key != "tools"}
    two, second = sample(name)["two_tools"], sample(name)["second_tool"]
    names = [each.what for each in tools_of(replace(request, body=dumped({**plain, **two}))).offered]
    for gone, left in ((names[:1], second), (names, {})):
        given = replace(request, body=dumped({**plain, **two}))
        bare = apply_edits(given.body, taken_out(given, "tools", {"names": gone}))
        assert json.loads(bare) == {**plain, **left}
    with pytest.raises(UsageError, match="offers no tool"):
        taken_out(request, "tools", {"names": ["none"]})


@pytest.mark.parametrize(
    ("name", "key", "kind"),
    [("anthropic", "messages", "image"), ("openai_responses", "input", "input_image")],
)
def test_a_picture_in_the_place_of_a_picture_is_one(name: str, key: str, kind: str) -> None:
    """Parts stand where the recorded result is parts; in the place of a text they are text, as others are."""

    def said(recorded: object, value: object) -> object:
        result = {"type": "tool_result", "tool_use_id": "a", "content": recorded}
        output = {"type": "function_call_output", "call_id": "a", "output": recorded}
        item = {"role": "user", "content": [result]} if key == "messages" else output
        (found,) = load(name).tool_results({key: [item]})
        return found.saying(value, json.dumps(value))

    parts = [{"type": kind, "source": "new"}]
    assert said([{"type": kind, "source": "old"}], parts) == parts
    for recorded, value in (("old", parts), (parts, []), (parts, [*parts, 1]), (parts, [{"type": "no"}])):
        assert said(recorded, value) == json.dumps(value)


SAID = st.one_of(
    st.builds(lambda text: ("text", None, text), TEXT.filter(bool)),
    st.builds(lambda text: ("tool_use", "note", json.dumps({"x": text})), TEXT),
)


@each_with_tools
@given(parts=st.lists(SAID, min_size=1, max_size=4, unique_by=lambda part: part[0]))
def test_what_is_written_is_read_back(name: str, parts: list[tuple[Any, str | None, str]]) -> None:
    """A reply and a request that are written say what they were made of, whole and by events."""
    form = load(name)
    parts = sorted(parts, key=lambda part: part[0] == "tool_use")
    turn = tuple(
        Message(role="assistant", kind=kind, name=named, content=text) for kind, named, text in parts
    )
    reply = Reply(choices=(turn,), usage=Usage(input_tokens=90, output_tokens=7, cached_tokens=20), model="m")
    whole = form.write_reply(reply, request={"model": "m"}, frame={}, ids=Ids(b"seed"))
    assert form.is_reply(whole)
    counting = {"model": "m", "stream_options": {"include_usage": True}}
    streamed = form.assemble(form.write_events(counting, whole, deltas))
    for one in (whole, streamed):
        found = form.read_reply(one)
        assert said(found.messages) == said(turn)
        counted = found.usage
        cached = 20 if "cached_tokens" in sample(name)["counted"] else None
        assert (counted.input_tokens, counted.output_tokens, counted.cached_tokens) == (90, 7, cached)
        assert found.model == (sample(name)["told"]["model"] and "m")
        assert found.response_id == form.read_reply(whole).response_id
    system = (Message(role="system", kind="text", content="Be brief."),)
    user = (Message(role="user", kind="text", content="Hi"),)
    again = form.read_request(form.write_request(Asked(system, (user, turn)), "m"))
    assert said(again.messages) == said((*system, *user, *turn))


def said(messages: Any) -> list[tuple[str, str | None, Any]]:
    """What messages say, a tool's input as a value: its spelling is the wire's."""
    return [
        (one.kind, one.name, json.loads(one.content) if one.kind == "tool_use" else one.content)
        for one in messages
    ]


def scalars(value: Any) -> set[str]:
    """All keys and texts in a sample, of which odd bodies are made."""
    if isinstance(value, dict):
        return {*value, *(text for item in value.values() for text in scalars(item))}
    if isinstance(value, list):
        return {text for item in value for text in scalars(item)}
    return {value} if isinstance(value, str) else set()


@each
@given(data=st.data())
def test_no_json_of_any_shape_raises(name: str, data: st.DataObject) -> None:
    """Any JSON in place of a request, a reply or an event reads as something that UTF-8 can carry."""
    form, words = load(name), sorted(scalars(sample(name)))
    odd = st.recursive(
        st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from([*words, "\ud83d"]),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(words), inner, max_size=5)
        ),
        max_leaves=25,
    )
    body = data.draw(st.dictionaries(st.sampled_from(words), odd, max_size=6))
    stream = [Event(None, json.dumps(bent(one.said(), data, odd)).encode()) for one in events(name)]
    found = [*form.read_request(body).messages, *form.read_reply(body).messages]
    found += form.read_request(bent(sample(name)["request"], data, odd)).messages
    found += form.read_reply(bent(sample(name)["reply"], data, odd)).messages
    found += form.read_reply(form.assemble(stream)).messages
    for one in found:
        f"{one.role}{one.name}{one.content}".encode()
    form.tool_results(body)
    with suppress(UsageError):
        form.system_edit(body, "x")
    for shape in (body, bent(sample(name)["request"], data, odd)):
        form.system_texts(shape)
        form.tools(shape)
    form.is_reply(body)


def bent(value: Any, data: st.DataObject, odd: st.SearchStrategy[Any]) -> Any:
    """The value with one member, at any depth, that is something else."""
    if isinstance(value, dict) and value:
        key = data.draw(st.sampled_from(sorted(value)))
        if data.draw(st.booleans()):
            return {**value, key: data.draw(odd)}
        return {**value, key: bent(value[key], data, odd)}
    if isinstance(value, list) and value:
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], bent(value[at], data, odd), *value[at + 1 :]]
    return value


@each
def test_a_form_offers_all_of_the_interface(name: str) -> None:
    """Nothing that the interface names is missing in the form's module."""
    module = load(name)
    assert isinstance(module, ModuleType)
    wanted = {one for one in vars(WireForm) if not one.startswith("_")}
    assert {one for one in wanted if not hasattr(module, one)} == set()
