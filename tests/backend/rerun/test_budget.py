"""Estimates from a tape, and a limit that holds while many trials run."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from stored import Recorder, answered, asked, trace
from tracefork_backend.rerun import edits
from tracefork_backend.rerun.budget import Budget
from tracefork_backend.rerun.estimate import WORST, Estimate, again, check_priced, estimate, total
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.store import open_store
from tracefork_backend.store.prices import Bill, bill, rates_given

from tracefork_otel import Tape, UsageError

MILLION = 1_000_000


@pytest.fixture
def tape(tmp_path: Path) -> Tape:
    """Four model calls of a million tokens in and none out, and between them one call of a tool."""
    run_id = trace()
    recorder = Recorder(tmp_path)
    recorder.root(run_id)
    for n in range(4):
        recorder.exchange(run_id, asked(f"turn {n}"), answered("ok", input_tokens=MILLION, output_tokens=0))
        if n == 1:
            recorder.exchange(run_id, b"{}", b"{}", url="https://tools.example/x")
    recorder.close()
    store = open_store(tmp_path)
    return reconstruct(store, store.run(run_id))


def test_a_live_tail_costs_what_the_parents_did(tape: Tape) -> None:
    """Every exchange after the step goes live again; only model calls have a price."""
    price = bill(tape.exchanges[:1]).usd
    assert price > 0
    after_first = estimate(tape, edits.text("x").bind(tape, 0))
    assert (after_first.calls, after_first.unknown) == (4, ())
    assert after_first.cost_usd == pytest.approx(3 * price)
    assert after_first.worst_usd == pytest.approx(WORST * 3 * price)
    assert estimate(tape, edits.text("x").bind(tape, 4)).calls == 0
    assert estimate(tape, edits.noop().bind(tape, 4)) == Estimate(calls=0, cost_usd=0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tail", "edit", "calls"),
    [
        ("offline", edits.text("x"), 0),
        ("offline", edits.resample(), 1),
        ("recorded", edits.text("x"), 4),
        ("recorded", edits.noop(), 0),
        ("live", edits.noop(), 4),
        ("live", edits.resample(), 5),
        ("live", edits.fault(529), 4),
    ],
)
def test_calls_go_live_as_the_tail_lets_them(tape: Tape, tail: str, edit: edits.Edit, calls: int) -> None:
    """What is sent for real is counted by kind of change and tail."""
    assert estimate(tape, edit.bind(tape, 0, tail=tail)).calls == calls  # type: ignore[arg-type]


def test_another_model_is_priced_by_its_own_list(tape: Tape) -> None:
    """The edited request costs what the variant's model does, the tail what the agent's does."""
    own = estimate(tape, edits.resample().bind(tape, 4)).cost_usd
    dear = estimate(tape, edits.request(model="claude-opus-4-1").bind(tape, 4)).cost_usd
    same = estimate(tape, edits.request(set={"model": "claude-opus-4-1"}).bind(tape, 4)).cost_usd
    assert dear > own
    assert dear == same


def test_a_model_without_a_price_is_named(tape: Tape) -> None:
    """Its calls are counted, and what they cost is said to be unknown, not nothing."""
    found = estimate(tape, edits.request(model="no-such-model").bind(tape, 0))
    assert found.unknown == ("the price of no-such-model is not known",)
    assert found.calls == 5
    assert "no-such-model" in str(found)
    both = total([(found, 3), (estimate(tape, edits.resample().bind(tape, 4)), 2)])
    assert (both.calls, both.unknown) == (17, found.unknown)


@pytest.mark.parametrize(("outcome", "said"), [("complete", 0), ("error", 9_000), ("truncated", 9_000)])
def test_what_was_cut_off_before_its_count_is_taken_at_its_limit(tape: Tape, outcome: str, said: int) -> None:
    """The provider makes the answer all the same; one that came whole is as long as it is."""
    request = replace(
        tape.exchanges[0].request,
        body=b'{"model": "claude-sonnet-4-5", "max_tokens": 9000, "messages": []}',
    )
    cut = replace(tape.exchanges[0], request=request, response=None, outcome=outcome)  # type: ignore[arg-type]
    found = again([cut])
    assert found.cost_usd == pytest.approx(said * 15 / MILLION, abs=1e-3)


def test_what_a_provider_told_of_its_own_call_is_no_price_of_another(tape: Tape) -> None:
    """OpenRouter says what each call cost; another model, or a longer answer, costs what the list says."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "cost": 0.000001}
    body = {"model": "openai/gpt-4o-mini", "choices": [{"message": {"content": "ok"}}], "usage": usage}
    first = tape.exchanges[0]
    assert first.response is not None
    told = replace(
        first,
        request=replace(
            first.request,
            url="https://openrouter.ai/api/v1/chat/completions",
            body=b'{"model": "openai/gpt-4o-mini", "max_tokens": 9000, "messages": []}',
        ),
        response=replace(first.response, body=json.dumps(body).encode()),
    )
    assert again([told]).cost_usd == pytest.approx(0.000001)
    assert (again([told]).most_usd or 0.0) > 0.001
    assert again([told], model_of=lambda one: "openai/gpt-4").cost_usd > 0.01
    assert again([told], model_of=lambda one: "my-own").unknown == ("the price of my-own is not known",)


@pytest.mark.parametrize(
    ("path", "asked", "answer"),
    [
        ("images/generations", {"model": "my-pictures", "prompt": "a cat"}, {"data": [{"url": "x"}]}),
        ("audio/speech", {"model": "my-voice", "input": "hello"}, {}),
    ],
)
def test_what_is_not_paid_by_tokens_is_named_with_what_can_be_said_of_it(
    tape: Tape, path: str, asked: dict[str, str], answer: dict[str, object]
) -> None:
    """A price by tokens is none of pictures or letters: the question says so, and which price works."""
    first, model = tape.exchanges[0], asked["model"]
    assert first.response is not None
    made = replace(
        first,
        request=replace(
            first.request, url=f"https://api.openai.com/v1/{path}", body=json.dumps(asked).encode()
        ),
        response=replace(first.response, body=json.dumps(answer).encode()),
    )
    with pytest.raises(UsageError, match=model):
        check_priced([again([made])], 1.0)
    with pytest.raises(
        UsageError, match=rf"no tokens of {model} were counted.*--price MODEL=0 if .*pictures"
    ):
        check_priced([again([made], given=rates_given([f"{model}=1/2"]))], 1.0)
    check_priced([again([made], given=rates_given([f"{model}=0"]))], 1.0)


@pytest.mark.parametrize(
    ("jobs", "most", "says"),
    [
        (1, 0.0154, "a call that runs when it ends is paid for, which can be $0.0154 more"),
        (4, 0.0154, "4 calls that run when it ends are paid for, which can be $0.0616 more"),
        (
            4,
            None,
            "4 calls that run when it ends are paid for, and neither a max_tokens nor the price list says "
            "how much that is",
        ),
    ],
)
def test_what_goes_beyond_a_budget_is_a_call_of_each_job(jobs: int, most: float | None, says: str) -> None:
    """As many run when it ends as there are jobs."""
    assert Estimate(calls=1, cost_usd=0.1, most_usd=most).beyond(jobs) == says


def test_concurrent_siblings_are_no_tail(tape: Tape) -> None:
    """An exchange that began before the step's answer came cannot depend on it."""
    first, second, *rest = tape.exchanges
    overlapping = replace(second, started_ns=first.started_ns + 1)
    other = replace(tape, exchanges=(first, overlapping, *rest))
    assert estimate(other, edits.text("x").bind(other, 0)).calls == 3


def test_a_replayed_exchange_cost_nothing(tape: Tape) -> None:
    """What a tape answered was not paid for."""
    assert bill([replace(tape.exchanges[0], replayed=True)]) == Bill(usd=0.0)


def test_nothing_starts_that_could_pass_the_limit() -> None:
    """What is spent and set aside counts; what is settled for less makes room again."""
    budget = Budget(1.0)
    assert budget.reserve(0.6)
    assert not budget.reserve(0.6)
    assert budget.exhausted
    budget.settle(0.6, 0.1)
    assert budget.reserve(0.6)
    budget.settle(0.6, None)
    assert (budget.spent_usd, budget.reserved_usd) == (0.1, 0.0)


def test_what_is_free_always_starts() -> None:
    """A trial without live calls needs no budget."""
    budget = Budget(0)
    assert budget.reserve(0.0)
    assert not budget.reserve(0.001)
    assert Budget(None).reserve(1e9)


@pytest.mark.parametrize("limit", [-1.0, float("nan"), float("inf")])
def test_a_budget_is_a_number_of_dollars(limit: float) -> None:
    """Anything else is refused."""
    with pytest.raises(UsageError, match="budget"):
        Budget(limit)


def test_many_threads_share_one_limit() -> None:
    """However trials interleave, what is spent stays within the limit where none costs more than reserved."""
    budget = Budget(10.0)
    started = threading.Semaphore(0)

    def trial(_: int) -> bool:
        if not budget.reserve(0.1):
            return False
        started.release()
        budget.settle(0.1, 0.1)
        return True

    with ThreadPoolExecutor(16) as pool:
        ran = sum(pool.map(trial, range(400)))
    assert ran in (99, 100)  # a hundred tenths are a little more than ten
    assert budget.spent_usd <= 10.0 + 1e-9
    assert budget.reserved_usd < 1e-9


SEARCH = {"type": "web_search_20250305", "name": "web_search"}
MESSAGES, CLAUDE = "https://api.anthropic.com/v1/messages", "claude-sonnet-4-5"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "model", "offer", "at_will"),
    [
        (MESSAGES, CLAUDE, {"tools": [SEARCH]}, True),
        (
            "https://api.anthropic.com/v1/messages",
            "claude-sonnet-4-5",
            {"tools": [{**SEARCH, "max_uses": 3}]},
            False,
        ),
        (
            "https://api.anthropic.com/v1/messages",
            "claude-sonnet-4-5",
            {"tools": [{"name": "web_search"}]},
            None,
        ),
        ("https://api.openai.com/v1/responses", "gpt-4.1", {"tools": [{"type": "web_search_preview"}]}, True),
        ("https://api.openai.com/v1/chat/completions", "gpt-4.1", {"web_search_options": {}}, True),
        (
            "https://api.openai.com/v1/responses",
            "gpt-4.1",
            {"tools": [{"type": "web_search"}], "max_tool_calls": 3},
            False,
        ),
        (
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent",
            "gemini-2.5-flash",
            {"tools": [{"google_search": {}}]},
            True,
        ),
    ],
)
def test_searches_without_a_limit_are_set_aside_for_one_call(
    tape: Tape, url: str, model: str, offer: dict[str, object], at_will: bool | None
) -> None:
    """Nobody knows how many there will be: ten are kept for the call that runs, and it is said beforehand."""
    first = tape.exchanges[0]
    assert first.response is not None
    answers = {
        "messages": {"type": "message", "usage": {"input_tokens": 100, "output_tokens": 10}},
        "responses": {"object": "response", "usage": {"input_tokens": 100, "output_tokens": 10}},
        "completions": {"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 10}},
        "generateContent": {
            "candidates": [],
            "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 10},
        },
    }
    kind = url.replace(":", "/").rpartition("/")[2]
    limit = {"max_tokens": 50, "max_output_tokens": 50, "generationConfig": {"maxOutputTokens": 50}}
    one = replace(
        first,
        request=replace(
            first.request,
            url=url,
            body=json.dumps({"model": model, "messages": [], "contents": [], **limit, **offer}).encode(),
        ),
        response=replace(first.response, body=json.dumps({"model": model, **answers[kind]}).encode()),
    )
    found = again([one, one])
    assert found.unknown == ()
    if at_will is None:
        assert found.searches_usd == 0.0
    elif at_will:
        assert 0.09 < found.searches_usd < 0.4
        assert found.call_usd > found.searches_usd
        assert "that is with 10 searches of the web, and where a request sets no max_uses" in found.beyond()
    else:
        assert found.searches_usd == pytest.approx(2 * 0.03)
        assert "searches of the web" not in found.beyond()
    assert total([(found, 2)]).searches_at_will is found.searches_at_will is bool(at_will)


GEMINI = "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent"
ROUTER = "https://openrouter.ai/api/v1/chat/completions"
COUNTED = {"prompt_tokens": 100, "completion_tokens": 10}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "asked", "answer", "lacking"),
    [
        (GEMINI, {"tools": [{"googleMaps": {}}]}, "gemini", "its searches of maps"),
        (GEMINI, {"tools": [{"google_maps": {"enable_widget": True}}]}, "gemini", "its searches of maps"),
        (GEMINI, {"tools": [{"functionDeclarations": [{"name": "google_maps"}]}]}, "gemini", None),
        (ROUTER, {"plugins": [{"id": "web", "max_results": 3}]}, COUNTED, "its searches of the web"),
        (ROUTER, {"model": "openai/gpt-4o:online"}, COUNTED, "its searches of the web"),
        (ROUTER, {"plugins": [{"id": "web", "enabled": False}, {"id": "file-parser"}]}, COUNTED, None),
        (ROUTER, {"plugins": [{"id": "web"}]}, {**COUNTED, "cost": 0.021}, None),
    ],
)
def test_searches_whose_price_nobody_knows_are_asked_for(
    tape: Tape, url: str, asked: dict[str, object], answer: object, lacking: str | None
) -> None:
    """Before a budget starts anything; a sum that the provider tells has them in it."""
    first = tape.exchanges[0]
    assert first.response is not None
    usage: dict[str, object] = {"choices": [], "usage": answer}
    if answer == "gemini":
        usage = {"candidates": [], "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 10}}
    body = {"model": "openai/gpt-4o", "messages": [], "contents": [], "max_tokens": 50, **asked}
    one = replace(
        first,
        request=replace(first.request, url=url, body=json.dumps(body).encode()),
        response=replace(first.response, body=json.dumps({"model": "openai/gpt-4o", **usage}).encode()),
    )
    found = again([one])
    assert [lacking] == [
        lacking if lacking and one and lacking in one else one for one in found.unknown or (None,)
    ]
    assert not found.searches_at_will


def test_what_was_refused_is_paid_for_where_it_is_answered(tape: Tape) -> None:
    """A run that ended with an error goes on where there is none; a repeated attempt is one call."""
    first, second = tape.exchanges[:2]
    assert first.response is not None
    body = b'{"model": "claude-sonnet-4-5", "max_tokens": 1000, "messages": []}'
    refused = replace(
        first,
        request=replace(first.request, body=body),
        response=replace(first.response, status=529, body=b'{"type": "error"}'),
    )
    alone = again([refused])
    assert alone.cost_usd == pytest.approx(1000 * 15 / MILLION, rel=0.01)
    answered_later = replace(second, request=replace(second.request, body=body))
    assert again([refused, answered_later]).cost_usd == pytest.approx(again([answered_later]).cost_usd)


def test_an_agent_that_may_go_on_after_its_last_step_has_a_call_kept_for_it(tape: Tape) -> None:
    """Another answer may have it ask again; one that is the same, or a tail that is not live, does not."""
    last = again(tape.exchanges[4:])
    assert last.call_usd > 0
    assert estimate(tape, edits.text("x").bind(tape, 4)).call_usd == last.call_usd
    assert estimate(tape, edits.text("x").bind(tape, 4, tail="offline")).call_usd == 0.0
    assert estimate(tape, edits.noop().bind(tape, 4)).call_usd == 0.0


def test_nothing_starts_once_the_limit_is_passed() -> None:
    """Not even what is thought to cost nothing: each such trial might take one call more."""
    budget = Budget(1.0)
    assert budget.reserve(0.0)
    budget.settle(0.0, 1.2)
    assert not budget.reserve(0.0)
