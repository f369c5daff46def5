"""Scripted models for the examples and the demo: what each answers follows from the conversation alone."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, cast

from .model import Behaviour, Call, Fault, Reply, ToolUse

# Where the booking model misreads the date; everywhere else it works.
_MISREAD_CITIES = frozenset({"osaka"})
# It misreads the date of the second flight it checks: a step in the middle, whose harm shows two steps later.
_MISREAD_CHECK = 1
# How often the sampled variant errs: often enough to fail, seldom enough that a resample mends it.
_MISREAD_RATE = 0.5
_BOOKING_TASK = re.compile(r"\bto (?P<city>[^\n]+?) on (?P<date>\d{4}-\d{2}-\d{2})")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _sorry(what: str) -> Reply:
    return Reply(text=f"ERROR: {what}. I am sorry, nothing was booked.")


def _booked(result: str, city: str) -> Reply:
    ticket = _parsed(result)
    if isinstance(ticket, Mapping) and ticket.get("status") == "confirmed":
        return Reply(
            text=f"BOOKED flight {ticket['flight']} to {city} on {ticket['date']}, "
            f"reference {ticket['reference']}. Have a good trip!"
        )
    why = ticket.get("status", "refused") if isinstance(ticket, Mapping) else result
    return _sorry(f"the booking failed ({why})")


def _next_check(call: Call, flights: list[str], wanted: str, misreads: bool) -> Reply | None:
    checks = [use.input for use in call.tool_uses if use.name == "check_seats"]
    done = {check.get("flight") for check in checks}
    flight = next((flight for flight in flights if flight not in done), None)
    if flight is None:
        return None
    day = wanted
    if misreads and len(checks) == _MISREAD_CHECK:
        day = (date.fromisoformat(wanted) + timedelta(days=1)).isoformat()
    words = "the cheapest" if not checks else "the next cheapest"
    return Reply(
        text=f"I check {words}, {flight}.",
        tools=(ToolUse("check_seats", {"flight": flight, "date": day}),),
    )


def _book_trip(call: Call, *, misreads: bool) -> Reply:
    task = _BOOKING_TASK.search(call.prompt)
    if task is None:
        return Reply(text="Which city do you want to fly to, and on which day (YYYY-MM-DD)?")
    city, wanted = task["city"], task["date"]
    results = [result for name, result in call.tool_results if name == "book"]
    if results:
        return _booked(results[-1], city)
    searches = [result for name, result in call.tool_results if name == "search_flights"]
    if not searches:
        search = ToolUse("search_flights", {"city": city})
        return Reply(text=f"I will look for flights to {city}.", tools=(search,))
    offers = _parsed(searches[-1])
    if not isinstance(offers, list) or not offers:
        return _sorry(f"I found no flight to {city}")
    flights = [str(offer["flight"]) for offer in sorted(offers, key=lambda offer: offer["price"])]
    for name, result in call.tool_results:
        seen = _parsed(result) if name == "check_seats" else None
        # It trusts the number and ignores the date beside it: so a misread date costs the trip.
        if isinstance(seen, Mapping) and seen.get("seats", 0) > 0:
            ticket = ToolUse("book", {"flight": seen["flight"], "date": wanted})
            return Reply(text=f"{seen['flight']} has {seen['seats']} seats left, I book it.", tools=(ticket,))
    return _next_check(call, flights, wanted, misreads) or _sorry(f"all flights to {city} are sold out")


def booking(call: Call) -> Reply:
    """Book a flight in five steps; for Osaka check the seats of the wrong day at step 2, and so fail.

    An instruction to double-check the date, or an opus model, keeps it from the mistake.
    """
    task = _BOOKING_TASK.search(call.prompt)
    careful = "double-check" in call.system.lower() or "opus" in call.model
    return _book_trip(call, misreads=bool(task) and task["city"].lower() in _MISREAD_CITIES and not careful)


def booking_sampled(call: Call) -> Reply:
    """Book a flight as `booking` does, but make the mistake for any city and only half of the time."""
    return _book_trip(call, misreads=call.rng.random() < _MISREAD_RATE)


_FINDINGS = {
    "history": "The field began with a handful of prototypes and took a decade to become dependable.",
    "cost": "Costs fell by about two thirds, most of it from better manufacturing.",
    "risk": "The main risk is supply: three producers make most of the material.",
    "regulation": "Two regions have rules in force; the others are still consulting.",
    "market": "Demand doubles about every three years and is led by industry.",
    "future": "The next step is expected from new materials rather than from scale.",
}


def research(call: Call) -> Reply:
    """Answer one question in a sentence, or turn numbered findings into a synthesis that counts them.

    Answers take up to 40 ms, each question its own time, so that concurrent ones end in another order.
    """
    findings = re.findall(r"^\d+\. (.+)$", call.last, re.MULTILINE)
    if findings:
        heads = "; ".join(finding.split(",")[0].rstrip(".").lower() for finding in findings)
        return Reply(text=f"SYNTHESIS of {len(findings)} findings: {heads}.")
    digest = hashlib.sha256(call.last.encode()).digest()
    known = next((text for word, text in _FINDINGS.items() if word in call.last.lower()), None)
    return Reply(
        text=known or f"No source says more about it than reference {digest.hex()[:8]}.",
        first_delay_s=digest[0] % 40 / 1000,
    )


def chat_tools(call: Call) -> Reply:
    """Handle a refund: look the order up, refund its total, confirm; and summarise what is given."""
    order = re.search(r"\border ([A-Z]-\d+)", call.prompt)
    if not call.tools or order is None:
        words = call.last.split()
        return Reply(text=f"SUMMARY ({len(words)} words): {' '.join(words[:8])} …")
    results = dict(call.tool_results)
    if "lookup_order" not in results:
        return Reply(tools=(ToolUse("lookup_order", {"order_id": order[1]}),))
    found = _parsed(results["lookup_order"])
    if not isinstance(found, Mapping) or "total" not in found:
        return Reply(text=f"ERROR: I could not find order {order[1]}.")
    if "refund" not in results:
        refund = ToolUse("refund", {"order_id": order[1], "amount": found["total"]})
        return Reply(text=f"The order's total is {found['total']}.", tools=(refund,))
    return Reply(text=f"REFUNDED order {order[1]}: {found['total']} EUR for {found['item']}.")


def fail_first(
    times: int, behaviour: Behaviour, *, fault: Fault = "429", retry_after: float | None = None
) -> Behaviour:
    """Return a behaviour whose first `times` requests meet the fault, and the others `behaviour`."""

    async def failing(call: Call) -> Reply:
        if call.index < times:
            return Reply(fault=fault, retry_after=retry_after)
        reply = behaviour(call)
        return await reply if inspect.isawaitable(reply) else reply

    return failing


_KNOWN: dict[str, Behaviour] = {
    "booking": booking,
    "booking_sampled": booking_sampled,
    "research": research,
    "chat_tools": chat_tools,
}


def load(name: str) -> Behaviour:
    """Return the behaviour of that name: one of this module's, or `pkg.mod:function` in this folder."""
    module_name, colon, function = name.partition(":")
    if not colon:
        if name not in _KNOWN:
            raise LookupError(f"no behaviour {name!r}: use {', '.join(_KNOWN)} or pkg.mod:function")
        return _KNOWN[name]
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError) as error:
        raise LookupError(f"cannot load the behaviour {name!r}: {error}") from error
    if not callable(found):
        raise LookupError(f"the behaviour {name!r} is a {type(found).__name__}, not a function")
    return cast("Behaviour", found)
