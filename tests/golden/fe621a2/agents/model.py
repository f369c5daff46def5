"""The model that the golden agents ask: its answers follow from the conversation, at times from chance."""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Any

from tracefork_backend.simulate import Call, Reply, ToolUse

SLOW_S = 60.0
"""Longer than anybody waits who means to kill the agent meanwhile."""


class Model:
    """Answers `trip.py`, `forms.py`, `drawn.py` and `function.py`."""

    def __init__(self, errs: float = 0.5) -> None:
        """`errs` is how often the model misreads the day of a flight that it checks."""
        self.errs = errs
        self._busy = True

    def __call__(self, call: Call) -> Reply:
        """The answer to one request."""
        if call.prompt.startswith("Book"):
            return self._trip(call)
        if call.prompt == "Are you busy?" and self._busy:
            self._busy = False
            return Reply(fault="429")
        if call.prompt == "Wait for me":
            return Reply(text="At last.", first_delay_s=SLOW_S)
        if call.tools and "warm" in call.prompt and not call.tool_results:
            return Reply(text="I look.", tools=(ToolUse("weather", {"city": "Oslo"}),))
        if call.tool_results:
            return Reply(text=f"It is {json.loads(call.tool_results[-1][1])['celsius']} °C.")
        return Reply(text=f"You said: {call.last[:40]}")

    def _trip(self, call: Call) -> Reply:
        results = {name: json.loads(text) for name, text in call.tool_results}
        if "book" in results:
            done = str(results["book"]).startswith("confirmed")
            return Reply(text=f"BOOKED: {results['book']}." if done else f"ERROR: {results['book']}.")
        if "check_seats" in results:
            flight: Any = results["check_seats"]["flight"]
            return Reply(
                text="I book it.", tools=(ToolUse("book", {"flight": flight, "date": "2026-11-03"}),)
            )
        if "search" in results:
            misread = call.rng.random() < self.errs
            day = date(2026, 11, 3) + timedelta(days=1 if misread else 0)
            use = ToolUse("check_seats", {"flight": "JL60" if misread else "NH176", "date": day.isoformat()})
            return Reply(text="I check one.", tools=(use,))
        return Reply(text="I look for flights.", tools=(ToolUse("search", {"city": "Osaka"}),))
