"""Why a fork is not what was asked for: the first cause, with what to do about it."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from tracefork_otel.exchange import Exchange
from tracefork_otel.wire.facts import facts_of

from ..spelling import counted
from .accounting import Account
from .records import REFUSED, DriftReport, is_error, last_line, phase_of
from .result import Problem

_SIGNALLED = 128
_MCP_SESSION = "mcp-session-id"
_SESSION_OVER = (400, 404)
"""What servers answer in a session that they do not know; the protocol has 404."""
_TRACEBACK = "Traceback (most recent call last)"


def first_problem(account: Account) -> Problem | None:
    """Return the first cause why this fork is not what was asked for; what follows from it is not told."""
    return next((problem for find in _CAUSES if (problem := find(account)) is not None), None)


def _left_tape(account: Account) -> Problem | None:
    drift = account.drift()
    if drift is None:
        return None
    return Problem("drift", f"the agent left its tape before step {account.change.step}: {drift.text}")


def _not_started(account: Account) -> Problem | None:
    why = account.ended.not_started
    return None if why is None else Problem("not_started", why)


def _leaked(account: Account) -> Problem | None:
    leaks = account.records.leaks()
    if not leaks:
        return None
    first = leaks[0]
    more = f" and {len(leaks) - 1} more" if len(leaks) > 1 else ""
    if first.port is None:
        return Problem("leak", f"{first.text}{more}")
    offline = account.change.tail == "offline"
    when = "though the tail is offline," if offline else f"before step {account.change.step}"
    return Problem(
        "leak",
        f"{when} the agent connected to {first.host}:{first.port}{more} "
        f"round the tape (by {first.caller}); if that is meant: --allow-host {first.host}",
    )


def _not_applied(account: Account) -> Problem | None:
    for one in account.records.exchanges:
        if one.error_type == REFUSED and "tracefork.drift" not in one.attributes:
            return Problem("not_applied", f"{one.request.method} {one.request.url}: {one.error_message}")
    return None


def _timed_out(account: Account) -> Problem | None:
    ended = account.ended
    if ended.no_room is not None:
        return Problem("budget", f"{ended.name}: {ended.no_room}; raise --budget to let it end")
    if ended.stopped:
        return Problem("stopped", f"{ended.name} was ended before it was done")
    if ended.timed_out is None:
        return None
    open_ = next((at for at, one in enumerate(account.own) if one.outcome == "in_flight"), None)
    where = f"while step {open_} was open" if open_ is not None else f"after {len(account.own)} calls"
    return Problem(
        "timeout",
        f"{ended.name} did not end within {ended.timed_out:g} s and was ended {where}; "
        "raise --timeout if it needs longer",
    )


def _not_reached(account: Account) -> Problem | None:
    if account.delivered:
        return None
    ended = account.ended
    if ended.rested is not None:
        return Problem(
            "not_reached", f"{ended.name} did not come to step {account.change.step}: {ended.rested}"
        )
    return Problem(
        "not_reached",
        f"{ended.name} ended before step {account.change.step}, after {counted(len(account.own), 'call')}, "
        f"with status {ended.exit_status}{_last_words(account)}: nothing was changed",
    )


def _not_called(account: Account) -> Problem | None:
    if account.replaced:
        return None
    change = account.change
    return Problem(
        "not_reached",
        f"after the answer of step {change.step} {account.ended.name} did not call the tool {change.tool} "
        "again: nothing was changed",
    )


def _offline(account: Account) -> Problem | None:
    first = next((one for one in account.misses if phase_of(one) == "tail"), None)
    if first is None:
        return None
    return Problem(
        "offline",
        "after the change the agent made a call that its parent had not made, and the tail is "
        f"{account.change.tail}: {DriftReport.of(first).text}; use the tail live or recorded",
    )


def _session_over(account: Account) -> Problem | None:
    """Tell of a request of an MCP session that began on the tape, where the server does not know it."""
    recorded = {session for one in account.tape.exchanges for session in _mcp_sessions(one)}
    for exchange in account.live:
        response = exchange.response
        known = recorded & _mcp_sessions(exchange)
        if response is not None and response.status in _SESSION_OVER and known:
            return Problem(
                "live_call",
                f"the live call {exchange.request.method} {exchange.request.url} was answered with status "
                f"{response.status}: the MCP session in which it is began in the recording, and the server "
                "has ended it since. Let the server keep no sessions (stateless_http=True in the official "
                "SDK), or have the agent open one for each call; a change of what the model reads "
                "(--tool-result) asks it nothing",
            )
    return None


def _mcp_sessions(exchange: Exchange) -> set[str]:
    return {value for name, value in exchange.request.headers if name.lower() == _MCP_SESSION}


def _live_call(account: Account) -> Problem | None:
    """Tell of the last call to each host: a client may have tried again."""
    last: dict[str, Exchange] = {urlsplit(one.request.url).netloc: one for one in account.live}
    for exchange in last.values():
        where = f"the live call {exchange.request.method} {exchange.request.url}"
        if exchange.outcome == "no_response":
            why = f"{exchange.error_type}: {exchange.error_message}".rstrip(": ")
            return Problem(
                "live_call",
                f"{where} got no answer ({why}): is the network there? The tail offline needs none"
                f"{_moved(account, exchange.request.url)}",
            )
        response = exchange.response
        # Any call but a model's may be meant to end so.
        if response is not None and is_error(exchange) and facts_of(exchange) is not None:
            mend = _mend(account, response.status)
            return Problem("live_call", f"{where} was answered with status {response.status}{mend}")
    return None


def _moved(account: Account, url: str) -> str:
    """Say how to go to another address, where the recording's environment has the one that was asked."""
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    for name, value in account.tape.start.environment.items():
        recorded, here = urlsplit(value), urlsplit(os.environ.get(name, ""))
        if (recorded.scheme, recorded.netloc) != (parts.scheme, parts.netloc):
            continue
        there = f"{here.scheme}://{here.netloc}"
        known = here.netloc and there != origin
        has = f", and this shell has {there}" if known else ""
        return (
            f". The address is {name} as it was recorded{has}; where it moved, set "
            f"TRACEFORK_MOVED={origin}={there if known else 'NEW'}"
        )
    return ""


def _mend(account: Account, status: int) -> str:
    if status not in (401, 403):
        return _last_words(account)
    unset = [name for name in account.tape.start.withheld if not os.environ.get(name)]
    names = " and ".join(unset) or "the provider's key"
    return f": set {names} in this environment, or use the tail offline"


def _ended_otherwise(account: Account) -> Problem | None:
    ended = account.ended
    status, known = ended.exit_status, account.tape.start.exit_status
    if not status or status == known:
        return None
    recorded = "" if known is None else f", recorded {known}"
    crashed = status > _SIGNALLED or _TRACEBACK in ended.stderr
    return Problem(
        "crash" if crashed else "exit_status",
        f"{ended.name} ended with status {status}{recorded}{_last_words(account)}",
    )


def _incomplete(account: Account) -> Problem | None:
    why = next(iter(account.records.losses()), None)
    return None if why is None else Problem("incomplete", f"the fork was not recorded whole: {why}")


def _last_words(account: Account) -> str:
    words = last_line(account.ended.stderr)
    return f" ({words})" if words else ""


_CAUSES = (
    _left_tape,
    _not_started,
    _leaked,
    _not_applied,
    _timed_out,
    _not_reached,
    _not_called,
    _offline,
    _session_over,
    _live_call,
    _ended_otherwise,
    _incomplete,
)
"""In this order, as each may be why those after it happened."""
