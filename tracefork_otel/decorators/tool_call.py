"""One call of a tool: its span, what is recorded of it, and what it gets in a replay or a fork."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..errors import Drift
from ..play.tools import GRACE_S, Recalled, Refused, Replaced, Runs
from ..recording.outcome import qualified
from ..session import root, spans, tool_calls
from . import values
from .around import Call

if TYPE_CHECKING:
    from ..play.tools import ToolAnswer
    from ..session.session import Session
    from ..tape.reads import ToolCall


class OpenToolCall(Call):
    """A tool's call, which is a span; in a replay or a fork the tape says what it gets."""

    def __init__(
        self,
        session: Session,
        name: str,
        arguments: str,
        by_text: tuple[str, ...],
        *,
        waits: bool,
        live: bool,
    ) -> None:
        """Open its span and make it current; `waits` says whether the function is a coroutine function."""
        self._session = session
        self._asked = (name, arguments, by_text)
        self._waits = waits
        self._live = live
        self._refused = False
        self._error: str | None = None
        """The recorded exception that it raises again."""
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.arguments": arguments,
        }
        if by_text:
            attributes["tracefork.tool.by_text"] = list(by_text)
        self._span, release = root.enter(session, f"execute_tool {name}", attributes, below_root=True)
        self._set = self._span.attributes.__setitem__
        with ExitStack() as entered:
            entered.callback(release)
            self._inside, outside = tool_calls.enter(self._span.span_id)
            entered.callback(outside)
            if session.draws is not None:
                entered.callback(session.draws.enter_tool(name))
            self._entered = entered.pop_all()
        if self._inside.outer is not None:
            self._set("tracefork.tool.inside", self._inside.outer.span_id)

    def enter(self) -> None:
        """Ask the tape, if there is one, what the call gets; raise Drift where it may get nothing."""
        player = self._session.player
        if player is not None:
            self._answered(player.tools.answer(*self._asked, live=self._live))

    def _answered(self, answer: ToolAnswer) -> None:
        if isinstance(answer, Refused):
            self._refused = True
            explanation, draws = answer.explanation, self._session.draws
            if draws is not None:
                explanation = draws.explained(explanation)
            self._set("tracefork.drift", explanation.to_json())
            if answer.phase is not None:
                self._set("tracefork.phase", answer.phase)
            raise Drift(f"tracefork {self._session.settings.mode}: {explanation.text()}")
        if answer.call is not None:
            self._set("tracefork.tool.recorded_span_id", answer.call.span_id)
        if isinstance(answer, Runs):
            self._set("tracefork.tool.ran", answer.why)
        else:
            self._set("tracefork.replayed", True)
        if not isinstance(answer, Replaced) and answer.loosely:
            self._set("tracefork.tool.loosely", True)
        if isinstance(answer, Recalled):
            self.instead = self._recalled(answer.call)
        elif isinstance(answer, Replaced):
            self._set("tracefork.intervention", answer.label)
            result = answer.result
            self.instead = lambda: json.loads(result)

    def _recalled(self, call: ToolCall) -> Callable[[], Any]:
        """Return what gives the recorded result: its value, its exception, or the wait to be cancelled."""
        lasted = (call.ended_ns - call.started_ns) / 1e9
        wait = lasted if self._session.settings.timing == "recorded" else 0.0
        if call.form == "value":
            return self._later(wait, lambda: json.loads(call.result))
        self._error = call.result
        error = values.error_of(call.result)
        if self._waits and values.was_cancelled(call.result):
            return self._later(lasted + GRACE_S, lambda: _raise(_cancelled(error)))
        return self._later(wait, lambda: _raise(error))

    def _later(self, seconds: float, give: Callable[[], Any]) -> Callable[[], Any]:
        if not seconds:
            return give
        if self._waits:
            return lambda: _given_after(seconds, give)

        def slept() -> Any:
            time.sleep(seconds)
            return give()

        return slept

    def returned(self, result: Any) -> None:
        """Put what the call gave on its span."""
        form, text = values.result_text(result)
        self._set("tracefork.tool.form", form)
        self._set("gen_ai.tool.call.result", self._session.redactor.text(text))

    def end(self, failure: BaseException | None) -> None:
        """End the call's span."""
        session = self._session
        self._entered.close()
        if failure is not None:
            self._set("error.type", qualified(type(failure)))
        if failure is not None and not self._refused:
            self._set("tracefork.tool.form", "error")
            self._set(
                "tracefork.tool.error", self._error or session.redactor.text(values.error_text(failure))
            )
        if self._inside.exchanges:
            self._set("tracefork.tool.exchanges", self._inside.exchanges)
        spans.end(session, self._span, error=failure)


def _raise(error: BaseException) -> Any:
    raise error


def _cancelled(error: BaseException) -> BaseException:
    """Return what ends a coroutine that nobody cancels although somebody did in the recording."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return error
    return asyncio.CancelledError()


async def _given_after(seconds: float, give: Callable[[], Any]) -> Any:
    import anyio  # both HTTP client libraries bring it; it also serves agents that run on trio

    await anyio.sleep(seconds)
    return give()
