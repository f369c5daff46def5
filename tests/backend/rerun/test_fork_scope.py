"""How far a change of requests holds: onward, in each later one that has its place, or once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import tracefork_backend as tf
from conftest import Capture
from tracefork_backend.blaming.changes import bound, fault, of_edit
from tracefork_backend.cli.fork_view import print_matrix
from tracefork_backend.rerun.edits import from_flags
from tracefork_backend.rerun.edits.calls import calls_of
from tracefork_backend.rerun.edits.tool_result import LastResult
from tracefork_backend.rerun.estimate import estimate
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.simulate import ModelServer
from tracefork_backend.simulate.model import Call, Reply, ToolUse
from tracefork_backend.store import Run, open_store

import tracefork_otel
from tracefork_otel import UsageError
from tracefork_otel.exchange import Request
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.play.onward import Onward
from tracefork_otel.wire.replies import tool_results
from tracefork_otel.wire.rewriting import carried, result_edits

CALLS = ((("weather", "Oslo"), ("weather", "Rome")), (("book", "NH1"),))


def model(call: Call) -> Reply:
    """Asks for the weather of two cities, books, and tells all results."""
    turn = (len(call.messages) - 1) // 2
    if turn < len(CALLS):
        return Reply(tools=tuple(ToolUse(name, {"of": given}) for name, given in CALLS[turn]))
    return Reply(text=" | ".join(said for _, said in call.tool_results))


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    """The model."""
    with ModelServer(model) as running:
        yield running


def plan(url: str, form: str) -> str:
    """An agent that builds every prompt itself, from the results that it keeps."""
    kept: list[tuple[Any, list[Any]]] = []
    with httpx2.Client() as client:
        while True:
            turn = len(kept)
            body = asked(form, kept) | {"model": "claude-haiku-4-5" if form == "anthropic" else "gpt-5-mini"}
            path = "/v1/messages" if form == "anthropic" else "/v1/chat/completions"
            said = client.post(url + path, json=body).json()
            calls, spoken = called(form, said)
            if not calls:
                return spoken
            kept.append((said, [(one, f"{name} {given['of']} {turn}") for one, name, given in calls]))


def asked(form: str, kept: list[tuple[Any, list[Any]]]) -> dict[str, Any]:
    """The next request, in that form."""
    system, messages = f"You plan. Turn {len(kept)}.", [{"role": "user", "content": "plan"}]
    if form == "openai":
        messages = [{"role": "system", "content": system}, *messages]
        for said, results in kept:
            messages.append(said["choices"][0]["message"])
            messages += [{"role": "tool", "tool_call_id": one, "content": text} for one, text in results]
        return {"messages": messages}
    for said, results in kept:
        blocks = [{"type": "tool_result", "tool_use_id": one, "content": text} for one, text in results]
        messages += [{"role": "assistant", "content": said["content"]}, {"role": "user", "content": blocks}]
    return {"system": system, "max_tokens": 99, "messages": messages}


def called(form: str, said: dict[str, Any]) -> tuple[list[tuple[str, str, Any]], str]:
    """The tool calls of an answer, and its text."""
    if form == "openai":
        message = said["choices"][0]["message"]
        calls = message.get("tool_calls") or []
        return [
            (one["id"], one["function"]["name"], json.loads(one["function"]["arguments"])) for one in calls
        ], message.get("content") or ""
    blocks = [one for one in said["content"] if one["type"] == "tool_use"]
    return [(one["id"], one["name"], one["input"]) for one in blocks], said["content"][0].get("text", "")


@pytest.fixture(params=["anthropic", "openai"])
def form(request: pytest.FixtureRequest) -> str:
    """The wire form that the agent speaks."""
    return str(request.param)


@pytest.fixture
def run(capture: Capture, server: ModelServer, form: str) -> Run:
    """A run of three steps."""
    capture.on()
    said = tracefork_otel.agent(plan)(server.url, form)
    capture.off()
    assert said == "weather Oslo 0 | weather Rome 0 | book NH1 1"
    server.requests.clear()
    (found,) = open_store(capture.store).runs("record")
    return found


@pytest.mark.slow
def test_a_fork_whose_requests_were_changed_is_a_run_like_any_other(
    run: Run, server: ModelServer, form: str
) -> None:
    """Its replay is bit-exact, though its agent asks as it always did; in its forks its changes hold on."""
    other = "claude-opus-4-8" if form == "anthropic" else "gpt-5"
    first = tf.fork(run, at=1, edit=tf.model(other), agent=plan)
    assert tf.replay(first.run, agent=plan).receipt[-1] == "PASS    bit-exact"
    below = tf.fork(first.run, at=2, edit=tf.system("Be brief."), agent=plan)
    assert (below.problem, below.calls_live) == (None, 1)
    assert tf.replay(below.run, agent=plan).receipt[-1] == "PASS    bit-exact"
    last = tf.fork(below.run, at=1, edit=tf.resample(), agent=plan)
    assert last.problem is None
    asked = [json.loads(one.request.body) for one in last.run.exchanges]
    assert [one["model"] == other for one in asked] == [False, True, True]
    assert ["Be brief." in json.dumps(one) for one in asked] == [False, False, True]


@pytest.mark.slow
def test_equal_requests_of_which_one_was_changed(capture: Capture, server: ModelServer) -> None:
    """Each is served its own answer: what is asked first is the first on the tape, changed or not."""
    capture.on()
    tracefork_otel.agent(twice)(server.url)
    capture.off()
    (run,) = open_store(capture.store).runs("record")
    once = tf.fork(run, at=1, edit=tf.request(set={"temperature": 0.5}, scope="once"), agent=twice)
    assert once.problem is None
    assert [b"temperature" in one.request.body for one in once.run.exchanges] == [False, True, False]
    again = tf.fork(once.run, at=2, edit=tf.text("OTHER"), agent=twice)
    assert [b"temperature" in one.request.body for one in again.run.exchanges] == [False, True, False]
    assert tf.replay(once.run, agent=twice).receipt[-1] == "PASS    bit-exact"


@pytest.mark.slow
def test_a_drift_from_such_a_fork_is_told_as_what_it_is(capture: Capture, server: ModelServer) -> None:
    """Of another prompt, not of the model that its fork had changed."""
    capture.on()
    tracefork_otel.agent(twice)(server.url)
    capture.off()
    (run,) = open_store(capture.store).runs("record")
    made = tf.fork(run, at=0, edit=tf.model("claude-opus-4-8"), agent=twice)
    result = tf.replay(made.run, agent=lambda url: twice(url, "another plan"))
    assert [one.path for one in result.drifts if one.cause != "missing"] == ["messages[0].content"] * 1


def twice(url: str, prompt: str = "plan") -> str:
    """Asks the same three times."""
    body = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": prompt}]}
    with httpx2.Client() as client:
        return str([client.post(f"{url}/v1/messages", json=body).status_code for _ in range(3)])


@pytest.mark.slow
def test_a_change_of_requests_holds_in_all_later_ones(run: Run, server: ModelServer, form: str) -> None:
    """Model, system prompt and a value: in each request from the step on; once, in that of the step alone."""
    other = "claude-opus-4-8" if form == "anthropic" else "gpt-5"
    edit = tf.request(model=other, system="Be brief.", set={"temperature": 0})
    made = tf.fork(run, at=1, edit=edit, agent=plan)
    sent = [one.json() for one in server.requests]
    assert [(one["model"], one["temperature"]) for one in sent] == [(other, 0), (other, 0)]
    assert ["Be brief." in json.dumps(one) and "Turn" not in json.dumps(one) for one in sent] == [True, True]
    assert (made.problem, made.scope, made.held) == (None, "onward", "held in 2 of 2 requests")
    server.requests.clear()
    once = tf.fork(run, at=1, edit=tf.model(other, scope="once"), agent=plan)
    assert [one.json()["model"] == other for one in server.requests] == [True, False]
    assert (once.scope, once.held) == ("once", "held in 1 of 2 requests")
    rows = run.store.rows("SELECT scope, held_in, held_of FROM forks ORDER BY created_at")
    assert [tuple(row.values()) for row in rows] == [("onward", 2, 2), ("once", 1, 2)]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["anthropic"], indirect=True)
def test_a_matrix_says_how_far_each_variant_held(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Over all forks of a variant, as a table's variants read alike without it."""
    variants = [tf.model("claude-opus-4-8", scope="once"), tf.system("Be brief."), tf.text("done")]
    made = tf.matrix([(run, 1)], variants, times=2, agent=plan)
    print_matrix(made)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("scope")]
    assert said == [
        "scope   once: held in 2 of 4 requests (request model=claude-opus-4-8)",
        "scope   onward: held in 4 of 4 requests (request system=Be brief.)",
    ]
    rows = [(row["scope"], row["held_in"], row["held_of"]) for row in made.rows()]
    assert rows == [("once", 2, 4), ("onward", 4, 4), (None, 0, 0)]


@pytest.mark.slow
def test_a_result_holds_wherever_its_call_is_carried(run: Run) -> None:
    """Of the two calls of one tool the named one's; once, a later prompt has the recorded result again."""
    was = "weather Oslo 0 | weather Rome 0 | book NH1 1"
    made = tf.fork(run, at=0, edit=tf.tool_result("weather#2", "rain"), agent=plan)
    assert (made.result, made.held) == (was.replace("weather Rome 0", "rain"), "held in 2 of 2 requests")
    by_id = str(calls_of(run.exchanges[0])[1].call_id)
    assert tf.fork(run, at=0, edit=tf.tool_result(by_id, "rain"), agent=plan).result == made.result
    once = tf.fork(run, at=0, edit=tf.tool_result("weather#2", "rain", scope="once"), agent=plan)
    assert (once.result, once.held) == (was, "held in 1 of 2 requests")


@pytest.mark.slow
def test_a_system_prompt_that_took_the_place_of_several_is_told(run: Run) -> None:
    """The agent's own differ from turn to turn, as a sub-agent's would; held to one step nothing is said."""
    made = tf.fork(run, at=1, edit=tf.system("Be brief."), agent=plan)
    (note,) = [one for one in made.notes if "system prompts" in one]
    assert "from step 1 on have 2 different system prompts (first at steps 1 and 2)" in note
    once = tf.fork(run, at=1, edit=tf.system("Be brief.", scope="once"), agent=plan)
    assert not any("system prompts" in one for one in once.notes)
    last = tf.fork(run, at=2, edit=tf.system("Be brief."), agent=plan)
    assert not any("system prompts" in one for one in last.notes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["corrupted_tool_output", "misleading_retrieval"])
def test_a_fault_of_a_result_holds_wherever_it_is_carried(run: Run, form: str, name: str) -> None:
    """An agent that keeps its tools' results repeats them: the broken one stays broken in each prompt."""
    tape = reconstruct(run.store, run)
    fits, _ = bound(fault(name), tape)
    assert sorted(fits) == [1, 2]
    change = fits[1]
    assert (change.scope, change.label) == ("onward", "tool_result weather")
    value = change.edits[0][1]
    assert change.onward is not None
    held = change.onward.held(tape.exchanges[2].request)
    assert held is not None
    was, now = (tool_results(one) for one in (tape.exchanges[2].request, held.request))
    changed = [at for at, (a, b) in enumerate(zip(was, now, strict=True)) if a.text != b.text]
    assert changed == [1], "the second call of the two that one answer made"
    assert now[1].text in str(value)
    made = tf.fork(run, at=1, edit=LastResult(text=now[1].text), agent=plan)
    assert made.held == "held in 2 of 2 requests"
    assert str(made.output).count(now[1].text) == 1


@pytest.mark.slow
def test_what_could_be_one_or_another_is_asked(run: Run) -> None:
    """The command says which calls there are; an unknown number too."""
    for edit in (tf.tool_result("weather", 1), tf.tool_input({}), tf.tool_input({}, tool="weather")):
        with pytest.raises(UsageError, match=r"2 times: weather#1 \(.*Oslo.*weather#2 \(.*Rome.*say which"):
            tf.fork(run, at=0, edit=edit, agent=plan)
    with pytest.raises(UsageError, match="weather#3 is none of its 2 calls of weather"):
        tf.fork(run, at=0, edit=tf.tool_result("weather#3", 1), agent=plan)
    made = tf.fork(run, at=0, edit=tf.tool_input({"of": "Bonn"}, tool="weather#2"), agent=plan)
    assert made.result == "weather Oslo 0 | weather Bonn 0 | book NH1 1"


@pytest.mark.slow
def test_a_part_that_later_requests_lack_is_counted(run: Run, form: str) -> None:
    """A path that only the forked request has, alone and beside one that all have."""
    last = "messages[4].content[0].content" if form == "anthropic" else "messages[6].content"
    made = tf.fork(run, at=2, edit=tf.request(set={last: "no"}), agent=plan)
    assert made.held == "held in 1 of 1 request"
    first = "messages[0].content" if form == "anthropic" else "messages[1].content"
    absent = tf.fork(run, at=0, edit=tf.request(set={first: "plan now"}), agent=plan)
    assert absent.held == "held in 3 of 3 requests"
    with pytest.raises(UsageError, match="whole conversation"):
        tf.fork(run, at=0, edit=tf.request(set={"messages": []}), agent=plan)


def test_an_experiment_on_steps_changes_one_step_at_a_time(run: Run, form: str) -> None:
    """Held onward, a model would blame each step before the one that it fails at; a result is one step's."""
    tape = reconstruct(run.store, run)
    name = "claude-opus-4-8" if form == "anthropic" else "gpt-5"
    fits, _ = bound(of_edit(tf.model(name)), tape)
    assert {(one.scope, one.onward) for one in fits.values()} == {("once", None)}
    fits, why = bound(of_edit(tf.model(name, scope="onward")), tape)
    assert (fits, "give scope='once'" in why[0]) == ({}, True)
    fits, _ = bound(of_edit(tf.tool_result("book", "no")), tape)
    assert [one.scope for one in fits.values()] == ["onward"]


def test_an_estimate_prices_each_call_for_its_model(run: Run, form: str) -> None:
    """All of them for the other model, or the step alone."""
    tape = reconstruct(run.store, run)
    name = "claude-opus-4-8" if form == "anthropic" else "gpt-5"
    onward, once = (estimate(tape, tf.model(name, scope=scope).bind(tape, 1)) for scope in ("onward", "once"))
    assert onward.calls == once.calls == 2
    assert onward.cost_usd > once.cost_usd * 1.3


@pytest.mark.slow
@pytest.mark.parametrize("form", ["anthropic"], indirect=True)
def test_a_model_of_another_maker_is_refused_with_what_is_possible(run: Run) -> None:
    """By the form that only one maker's models are asked in; a gateway's name is set."""
    for name in ("gpt-5", "gemini-2.5-pro"):
        with pytest.raises(UsageError, match=f"{name} is a model of .*claude-haiku-4-5.*--set model={name}"):
            tf.fork(run, at=0, edit=tf.model(name), agent=plan)
    assert tf.fork(run, at=0, edit=tf.request(set={"model": "gpt-5"}), agent=plan).held_in == 3


def test_flags_say_how_far(run: Run) -> None:
    """`--once` beside what has a scope; beside anything else it is refused."""
    (edit,) = from_flags({"model": ["m"], "once": True})
    assert edit == tf.model("m", scope="once")
    with pytest.raises(UsageError, match="--once says how far"):
        from_flags({"text": ["hi"], "once": True})
    with pytest.raises(UsageError, match="no scope"):
        tf.model("m", scope="twice")  # type: ignore[arg-type]
    change = tf.tool_result("book", {"a": [1]}).bind(reconstruct(run.store, run), 1)
    assert Intervention.from_json(change.to_json()) == change
    older = json.loads(change.to_json())
    del older["scope"], older["onward"]
    assert Intervention.from_json(json.dumps(older)).onward is None
    assert isinstance(change.onward, Onward)


GEMINI = "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-pro:generateContent"


def conversation(*said: str, error: bool = False) -> Request:
    """A Gemini request in which one tool was called so often, without ids, and said this."""
    contents: list[Any] = [{"role": "user", "parts": [{"text": "go"}]}]
    for one in said:
        response = {"error": one} if error else {"result": one}
        answer = {"functionResponse": {"name": "look", "response": response}}
        call = {"functionCall": {"name": "look", "args": {}}}
        contents += [{"role": "model", "parts": [call]}, {"role": "user", "parts": [answer]}]
    return Request(method="POST", url=GEMINI, body=json.dumps({"contents": contents}).encode())


def test_a_result_without_an_id_is_found_by_its_place_and_what_it_said() -> None:
    """Never by a guess: where it was cut off the history, a later call's result stays."""
    first = conversation("one")
    among = tool_results(first)
    wanted = carried(among[0], among, "look", "other", "other")
    assert [path for path, _ in result_edits(conversation("one", "two"), wanted)] == [
        "contents[2].parts[0].functionResponse.response.result"
    ]
    assert result_edits(conversation("two"), wanted) == ()
    assert result_edits(conversation("two", "one"), wanted)[0][0].startswith("contents[4]")
    failed = conversation("boom", error=True)
    among = tool_results(failed)
    wanted = carried(among[0], among, "look", "fine", "fine")
    assert len(result_edits(conversation("boom", error=True), wanted)) == 2
