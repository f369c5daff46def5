"""What a tape gives an agent besides an answer's bytes, kind by kind, and what a replay or fork made of it.

Each kind of evidence says of itself what the recording did not keep, what became of it while it was played,
and what of it never came. A reader asks all kinds alike.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tracefork_otel.exchange import Exchange
from tracefork_otel.play.tools import ToolsMode, Why, mode_of
from tracefork_otel.recording.exchange import UNCOMPARED
from tracefork_otel.redaction.redact import ATTRIBUTE, WITHHELD
from tracefork_otel.tape.reads import ToolCall
from tracefork_otel.tape.tape import Tape

from ..store.drawn import SAID, UNKEPT, Remark, remarks, values
from ..store.lost import losses
from .extent import was_left
from .records import DriftReport, Records
from .tool_spans import tool_spans

_LISTED = 3
_RECORDED = "tracefork.tool.recorded_span_id"
_RAN: dict[Why, str] = {
    "live": "ran for real",
    "text": "ran for real, as no JSON of its result is recorded",
    "exchanges": "ran, as its requests are on the tape",
    "change": "ran, as a call of its own is changed",
    "tail": "ran for real, as it is not recorded",
}
_BECAME: dict[str, str] = {"replaced": "replaced", **_RAN, "refused": "refused"}
"""What became of calls whose recorded result was not served, in words."""


class Evidence:
    """One kind of what a tape holds; a kind says only what applies to it."""

    def line(self, records: Records) -> str | None:
        """Say in a line what became of it; None if there was none."""

    def missing(self, records: Records) -> Iterator[DriftReport]:
        """Yield what was recorded and never came; told where no other drift explains it."""
        return iter(())

    def remarks(self, records: Records) -> Iterator[str]:
        """Yield what a reader should know of it; none of it fails a replay."""
        return iter(())


class Exchanges(Evidence):
    """The recorded requests and their answers."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._steps = {exchange.span_id: step for step, exchange in enumerate(tape.exchanges)}

    def served(self, records: Records) -> tuple[dict[int, Exchange], list[str]]:
        """Return by step the requests that were served, and why others were not."""
        served: dict[int, Exchange] = {}
        problems: list[str] = []
        for exchange in records.exchanges:
            if "tracefork.drift" in exchange.attributes:
                continue
            step = self._steps.get(str(exchange.served_span_id))
            if step is None:
                where = f"{exchange.request.method} {exchange.request.url}"
                why = exchange.error_message or "it went over the network"
                problems.append(f"{where} was not served: {why}")
            elif step in served:
                problems.append(f"step {step} was served twice, to two processes that sent the same request")
            else:
                served[step] = exchange
        return served, problems

    def missing(self, records: Records) -> Iterator[DriftReport]:
        """Yield the steps that nobody asked for."""
        served, _ = self.served(records)
        tools = Tools(self._tape).served(records)
        for step, exchange in enumerate(self._tape.exchanges):
            if step in served:
                continue
            shown = f"{exchange.request.method} {exchange.request.url}"
            during = next(
                (one.name for one in tools if one.started_ns <= exchange.started_ns <= one.ended_ns), None
            )
            fewer = (
                "a process was still at work when the recording's command ended, and was not in time here"
                if was_left(self._tape, exchange.started_ns)
                else "the agent makes fewer calls"
            )
            why = (
                fewer
                if during is None
                else f"it was made during a call of the tool {during}, whose result was served: let it run, "
                "with --tools live"
            )
            yield DriftReport(
                step=step,
                cause="missing",
                text=f"step {step}: {shown} was recorded, but never asked for (missing): {why}",
                recorded=shown,
                nearest=step,
            )

    def remarks(self, records: Records) -> Iterator[str]:
        """Yield why the recording itself is not whole, and what of its requests was not compared."""
        names = Counter(name for one in records.exchanges for name in uncompared(one))
        if names:
            why = "redaction replaced it, and no digest by this machine's key is on both sides"
            yield f"not compared: {_named(names)} ({why})"
        notes = self._tape.notes
        whys = [*(loss.why for loss in losses(notes))]
        whys += [str(note.attributes.get("why", note.kind)) for note in notes if note.kind != "lost"]
        yield from (f"the recording is incomplete: {why}" for why in whys)
        if self._tape.left_ns is not None:
            yield "a process was still at work when the recording's command ended: the replay waited for it"


class Tools(Evidence):
    """The calls of local tools, whose recorded results are served to `@tool` functions."""

    def __init__(self, tape: Tape, mode: ToolsMode | None = None) -> None:
        """`mode` is what was asked for: `recorded`, `live`, `refuse`, or None for what the tape has."""
        self._tape = tape
        self._mode: ToolsMode | None = mode

    def served(self, records: Records) -> tuple[ToolCall, ...]:
        """Return the recorded calls whose results were given, so that their functions did not run."""
        given = {
            span.attributes.get(_RECORDED)
            for _, span in tool_spans(records.spans, ours=True)
            if span.attributes.get("tracefork.replayed")
        }
        return tuple(call for call in self._tape.tools if call.span_id in given)

    def line(self, records: Records) -> str | None:
        """Say how many calls were served, and of the others why not."""
        calls = [(name, span.attributes) for name, span in tool_spans(records.spans, ours=True)]
        if not calls and not self._tape.tools:
            return None
        ways = [_way(attributes) for _, attributes in calls]
        parts = [f"{ways.count('served')} of {len(calls)} served from the tape"]
        for way, words in _BECAME.items():
            names = Counter(name for (name, _), one in zip(calls, ways, strict=True) if one == way)
            parts += [f"{words}: {_named(names)}"] if names else []
        loosely = Counter(name for name, attributes in calls if attributes.get("tracefork.tool.loosely"))
        parts += [f"told apart without arguments that are no JSON: {_named(loosely)}"] if loosely else []
        return "; ".join(parts)

    def missing(self, records: Records) -> Iterator[DriftReport]:
        """Yield the recorded calls that were not made, though the calls around them were made."""
        if mode_of(self._mode, self._tape.tools) == "live":
            return
        asked = {span.attributes.get(_RECORDED) for _, span in tool_spans(records.spans, ours=True)}
        spared = {call.span_id for call in self.served(records)}
        for call in self._tape.tools:  # outer calls start before inner ones
            if call.inside in spared:
                spared.add(call.span_id)
            elif call.span_id not in asked:
                step, what = step_before(self._tape, call), f"tool {call.name}({call.arguments})"
                yield DriftReport(
                    step=step,
                    cause="missing",
                    text=f"step {step}: {what} was recorded, but never called (missing): "
                    "the agent makes fewer calls",
                    recorded=what,
                )

    def remarks(self, records: Records) -> Iterator[str]:
        """Yield which tools of frameworks, whose own code runs, were called."""
        ran = Counter(name for name, _ in tool_spans(records.spans, ours=False))
        if ran:
            yield f"tools ran for real: {_named(ran)}"


def _way(attributes: Mapping[str, Any]) -> str | None:
    """Return what became of a tool's call."""
    if "tracefork.drift" in attributes:
        return "refused"
    if "tracefork.intervention" in attributes:
        return "replaced"
    return "served" if attributes.get("tracefork.replayed") else attributes.get("tracefork.tool.ran")


def _named(names: Counter[str]) -> str:
    listed = [f"{name} ({n} times)" if n > 1 else name for name, n in sorted(names.items())]
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(listed[:_LISTED]) + more


def step_before(tape: Tape, call: ToolCall) -> int:
    """Return the last step that had begun when the call did, 0 if none had."""
    return max(0, sum(one.started_ns <= call.started_ns for one in tape.exchanges) - 1)


class Draws(Evidence):
    """The values that the agent read from clocks, ids and randomness."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def line(self, records: Records) -> str | None:
        """Say how many values were served, and what of the first others."""
        noted = Counter[Remark]()
        for remark, count in remarks(records.notes):
            noted[remark] += count
        if not (self._tape.draws or noted):
            return None
        served = Counter[tuple[str, str]]()
        lanes: set[str] = set()
        for draw, was_served in values(records.notes):
            lanes.add(draw.lane)
            served[draw.source, draw.site] += was_served
        # A tool whose result was served did not run, and so drew nothing.
        asked = [draw for draw in self._tape.draws if "/tool:" not in draw.lane or draw.lane in lanes]
        recorded = Counter((draw.source, draw.site) for draw in asked)
        left = {place: n - served[place] for place, n in recorded.items() if n > served[place]}
        count, spared = served.total(), len(self._tape.draws) - len(asked)
        line = f"{count} of {len(asked)} served" if count < len(asked) else f"{count} served"
        line += f", {spared} of tools that did not run" if spared else ""
        found: list[str] = []
        # A line that merely moved, all else being equal, is no news.
        if left or any(remark.kind != "moved" for remark in noted):
            for remark, n in sorted(noted.items(), key=lambda one: list(SAID).index(one[0].kind)):
                times = "" if remark.kind in UNKEPT else f"{n} x "
                found.append(f"{times}{remark.subject} {SAID[remark.kind]}")
        found += [f"{n} x {Remark('left', *place).subject} never asked for" for place, n in left.items()]
        if not found:
            return line
        more = f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        return f"{line}, partial ({'; '.join(found[:_LISTED])}{more})"


class Redaction(Evidence):
    """What a user's redaction rules replaced before it was recorded."""

    def __init__(self, exchanges: Iterable[Exchange]) -> None:
        self._exchanges = tuple(exchanges)

    def recorded(self) -> str | None:
        """Say which rules replaced something, and how often; None if none did."""
        touched = [sides for exchange in self._exchanges if (sides := _replaced(exchange))]
        if not touched:
            return None
        total = sum((Counter(counts) for sides in touched for counts in sides.values()), Counter[str]())
        found = ", ".join(f"{name} ×{count}" for name, count in sorted(total.items()))
        withheld = sum(WITHHELD in exchange.attributes for exchange in self._exchanges)
        text = f"{len(touched)} exchange{'' if len(touched) == 1 else 's'} redacted: {found}"
        return text + (f"; {withheld} without their bodies" if withheld else "")

    def remarks(self, records: Records) -> Iterator[str]:
        """Yield how replaced values were played."""
        line = self.recorded()
        if line is None:
            return
        answered = any("response" in _replaced(exchange) for exchange in self._exchanges)
        how = (
            "replay serves replaced values"
            if answered
            else "the same rules were applied to the requests before they were compared"
        )
        yield f"redacted: {how} ({line})"


def uncompared(exchange: Exchange) -> tuple[str, ...]:
    """Return the names of replaced values that were not compared with the tape's."""
    told = exchange.attributes.get(UNCOMPARED)
    return tuple(map(str, told)) if isinstance(told, list | tuple) else ()


def _replaced(exchange: Exchange) -> Mapping[str, Mapping[str, int]]:
    """Return how often each rule replaced something, by side; nothing where none did."""
    told = exchange.attributes.get(ATTRIBUTE)
    try:
        found = json.loads(told) if isinstance(told, str) else None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
