"""What live calls will cost, estimated from the tape: what a trial reserves of a budget beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tracefork_otel.errors import UsageError
from tracefork_otel.wire.codings import plain_request
from tracefork_otel.wire.counted import paid_of
from tracefork_otel.wire.counted_paths import counted_call
from tracefork_otel.wire.facts import facts
from tracefork_otel.wire.json_edits import apply_edits
from tracefork_otel.wire.limits import BYTES_PER_TOKEN, most_of
from tracefork_otel.wire.messages import Facts
from tracefork_otel.wire.rewriting import kin_of

from ..spelling import at_least, counted, money
from ..store.prices import NONE_GIVEN, Given, Price, price_of
from .edits import KINDS
from .most import SEARCHES, most_usd
from .records import is_error

if TYPE_CHECKING:
    from tracefork_otel.exchange import Exchange
    from tracefork_otel.play.intervention import Intervention
    from tracefork_otel.tape.tape import Tape


WORST = 2.0
"""What is reserved for a trial, as a multiple of its estimate: a tail may be longer than its parent's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What one trial is likely to take: the live calls that its parent made from there on."""

    calls: int
    cost_usd: float
    """The price of those calls whose price is known."""
    unknown: tuple[str, ...] = ()
    """Why the price of the others is not."""
    searches_usd: float = 0.0
    """What searches may cost beyond those that were made, up to the most that the requests allow."""
    call_usd: float = 0.0
    """What is kept aside for the call that runs: the dearest of them, as if it took twice as much."""
    most_usd: float | None = 0.0
    """What one call can cost at most, with twice the text of its own request; None where nothing says it."""
    at_once: int = 1
    """How many of the calls ran at a time, at most."""
    searches_at_will: bool = False
    """Whether a request lets its provider search the web, and does not say how often."""

    @property
    def worst_usd(self) -> float:
        """What is reserved for the trial."""
        return self.cost_usd * WORST + self.searches_usd

    def beyond(self, jobs: int = 1) -> str:
        """Say by how much a budget can be passed: by what the calls of each job cost that then run."""
        running = jobs * self.at_once
        calls = (
            "a call that runs when it ends is"
            if running == 1
            else f"{running} calls that run when it ends are"
        )
        if self.most_usd is None:
            return f"{calls} paid for, and neither a max_tokens nor the price list says how much that is"
        more = f"{calls} paid for, which can be {money(running * self.most_usd)} more"
        if self.searches_at_will:
            more += (
                f"; that is with {SEARCHES} searches of the web, and where a request sets no max_uses (or "
                "max_tool_calls) it may make more of them"
            )
        return more

    def __str__(self) -> str:
        more = f"; {'; '.join(self.unknown)}" if self.unknown else ""
        return f"{counted(self.calls, 'live call')}, {at_least(self.cost_usd, len(self.unknown))}{more}"


def estimate(tape: Tape, change: Intervention, given: Given = NONE_GIVEN) -> Estimate:
    """Return what a fork with this change is likely to take, by what the tape's own calls took.

    Of a `recorded` tail it says the most: answers from memory are not foreseen, unless nothing is changed.
    """
    same = not (change.goes_live or change.also or KINDS[change.kind].edited)
    follows = change.tail == "live" or (change.tail == "recorded" and not same)
    later = list(after(tape, change.step)) if follows else []
    forked = tape.exchanges[change.step]
    asked = {tape.exchanges[one.step].span_id: one for one in (*change.also, change) if one.goes_live}
    others = {
        one.span_id: _other_model(one, asked[one.span_id]) for one in tape.exchanges if one.span_id in asked
    }
    onward = None if change.onward is None else others.get(forked.span_id)
    kin = None if onward is None else kin_of(forked.request)

    def model_of(exchange: Exchange) -> str | None:
        if exchange.span_id in others:
            return others[exchange.span_id]
        return onward if kin is not None and kin_of(exchange.request) == kin else None

    found = again([forked, *later] if change.goes_live else later, model_of=model_of, given=given)
    if found.calls or same or change.tail != "live":
        return found
    # The run ended there; changed, it may go on, with a call like its last one.
    more = again([forked], given=given)
    return replace(found, call_usd=more.call_usd, most_usd=more.most_usd)


def again(
    calls: Iterable[Exchange],
    *,
    model_of: Callable[[Exchange], str | None] = lambda exchange: None,
    given: Given = NONE_GIVEN,
) -> Estimate:
    """Return what it takes to make these calls again, some of them perhaps for another model."""
    calls, total, unknown = list(calls), 0.0, dict[str, None]()
    paid: list[Exchange] = []
    searches, dearest, most, at_will = 0.0, 0.0, [0.0], list[float]()
    for exchange in calls:
        model = model_of(exchange)
        found = paid_of(exchange)
        if found is None or found.usage.pending or _is_asked_again(exchange, found, calls):
            continue  # what is pending is counted where it is fetched, what was refused where it was answered
        paid.append(exchange)
        price, limits = _price(exchange, found, model, given), most_of(plain_request(exchange.request))
        if price.usd is None:
            unknown.setdefault(price.reason or str(model or found.model or found.provider))
            continue
        total, dear = total + price.usd, price.usd
        if limits.maps:
            mapped = _price(exchange, _searching(found, "maps_searches", 1), model, given)
            if mapped.usd is None:
                unknown.setdefault(mapped.reason or "")
                continue
            searches, dear = searches + mapped.usd - price.usd, mapped.usd
        if limits.searches != 0:
            made = dict(found.usage.units).get("web_searches", 0)
            allowed = max(SEARCHES, made * WORST) if limits.searches is None else max(made, limits.searches)
            searched = _price(exchange, _searching(found, "web_searches", allowed), model, given)
            if searched.usd is None:
                unknown.setdefault(searched.reason or "")
                continue
            dear += searched.usd - price.usd
            if limits.searches is None:
                at_will.append(searched.usd - price.usd)
            else:
                searches += searched.usd - price.usd
        dearest = max(dearest, price.usd * WORST, dear)
        # One that is asked for later may be longer than that which was recorded.
        bound = most_usd(exchange, found, model=model, given=given, longer=WORST)
        if bound is None:
            most.clear()
        elif most:
            most.append(max(dearest, bound))
    return Estimate(
        calls=len(calls),
        cost_usd=total,
        unknown=tuple(unknown),
        searches_usd=searches + max(at_will, default=0.0),
        call_usd=dearest,
        most_usd=max(most, default=None),
        at_once=_at_once(paid),
        searches_at_will=bool(at_will),
    )


def _searching(found: Facts, what: str, times: float) -> Facts:
    """Return the facts of a call that searched so often; a sum that was told has that in it."""
    counts = {**dict(found.usage.units), what: times}
    return replace(found, usage=replace(found.usage, units=tuple(counts.items())))


def _is_asked_again(exchange: Exchange, found: Facts, calls: Iterable[Exchange]) -> bool:
    """Return whether it was refused, and a later one of the calls is the same request."""
    if found.input_tokens is not None or not is_error(exchange):
        return False
    return any(
        other.started_ns > exchange.started_ns and other.request.body == exchange.request.body
        for other in calls
    )


def _at_once(calls: Sequence[Exchange]) -> int:
    """Return how many of the calls ran at a time, at most, and no less than one."""
    begun = [(one.started_ns, 1) for one in calls]
    ended = [(one.ended_ns or one.started_ns, -1) for one in calls]
    return max((1, *accumulate(step for _, step in sorted(begun + ended))))


def after(tape: Tape, step: int) -> Iterator[Exchange]:
    """Return the exchanges that can depend on a step's answer: those that began once it was there."""
    forked = tape.exchanges[step]
    ended = forked.ended_ns if forked.ended_ns is not None else forked.started_ns
    return (
        exchange for exchange in tape.exchanges if exchange is not forked and exchange.started_ns >= ended
    )


def _other_model(exchange: Exchange, change: Intervention) -> str | None:
    """Return the model that the changed request asks for, None where it is the recorded one's."""
    asked = exchange.request
    plain = plain_request(asked)
    path = urlsplit(asked.url).path if change.path is None else change.path
    url = urlsplit(asked.url)._replace(path=path).geturl()
    recorded, changed = (
        facts(asked.method, where, request=body, response=None, content_type=None)
        or counted_call(asked.method, where, body)
        for where, body in ((asked.url, plain), (url, apply_edits(plain, list(change.edits))))
    )
    if recorded is None or changed is None or changed.model == recorded.model:
        return None
    return changed.model


def _price(exchange: Exchange, found: Facts, model: str | None, given: Given) -> Price:
    """Return what the call would cost now; where the wire counted nothing, by how long both sides are."""
    used = found.usage
    if model is not None:
        used = replace(used, told_usd=None)  # that was told of the recorded call's model
    if not used.is_counted:
        asked = plain_request(exchange.request)
        said = sum(len(one.content) for one in found.reply) // BYTES_PER_TOKEN
        if exchange.outcome not in ("complete", None) or is_error(exchange):
            said = max(said, most_of(asked).output_tokens or 0)  # it is made whole where nothing fails
        used = replace(used, input_tokens=len(asked) // BYTES_PER_TOKEN, output_tokens=said)
    return price_of(found, models=[model], usage=used, at=None, url=exchange.request.url, given=given)


def check_priced(estimates: Iterable[Estimate], budget_usd: float | None, asker: object = None) -> None:
    """Raise UsageError where a budget is to hold calls whose price is not known: it asks for the price.

    Those of the forks, and of who asks a model beside them: a judge, for one.
    """
    asked: tuple[str, ...] = getattr(asker, "unknown", ())
    unknown = tuple(dict.fromkeys((*(why for one in estimates for why in one.unknown), *asked)))
    if unknown and budget_usd is not None:
        raise UsageError(
            f"{'; '.join(unknown)}, so --budget cannot be held. What does it cost? Say it with --price "
            "MODEL=IN/OUT, in dollars for a million tokens of input and of output (--price MODEL=0 if "
            "nothing, or if it is not paid by tokens, as pictures are: --budget then leaves it out), or "
            "leave --budget out"
        )


def total(estimates: Iterable[tuple[Estimate, int]]) -> Estimate:
    """Return what so many trials of each are likely to take together."""
    calls, cost, searches, unknown = 0, 0.0, 0.0, dict[str, None]()
    call, at_once, most, at_will = 0.0, 1, [0.0], False
    for trial, times in estimates:
        calls += trial.calls * times
        cost += trial.cost_usd * times
        searches += trial.searches_usd * times
        call, at_once = max(call, trial.call_usd), max(at_once, trial.at_once)
        unknown |= dict.fromkeys(trial.unknown)
        at_will = at_will or trial.searches_at_will
        if trial.most_usd is None:
            most.clear()
        elif most:
            most.append(trial.most_usd)
    return Estimate(
        calls=calls,
        cost_usd=cost,
        unknown=tuple(unknown),
        searches_usd=searches,
        call_usd=call,
        most_usd=max(most, default=None),
        at_once=at_once,
        searches_at_will=at_will,
    )
