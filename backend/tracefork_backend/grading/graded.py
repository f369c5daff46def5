"""What an oracle is shown of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracefork_otel.tape.tape import Tape

    from ..store import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """What an oracle is shown of a run."""

    run_id: str
    output: object = None
    """What the agent's function returned (as text, if that was in another process), else its output."""
    exit_status: int | None = None
    """How its process ended, 128+n for signal n; None if nobody saw it."""
    last_text: str = ""
    """The text of the last model call's response, put together where it was streamed."""
    stdout: str = ""
    stderr: str = ""
    """The beginning and the end of both; empty for recorded runs, of which they are not kept."""
    problem: str | None = None
    """Why the run is none to grade, such as a fork that never came to its step; such a run has no outcome."""

    @property
    def text(self) -> str:
        """What is graded, as text: the output, else the last response's text."""
        from tracefork_otel.decorators.agent import result_text

        output = "" if self.output is None else result_text(self.output)
        return output if output.strip() else self.last_text


def graded_run(run: Run | Tape) -> Graded:
    """Return what a recorded run shows an oracle: its value, exit status and last response.

    Standard output is not kept with a run, so one that returned nothing is graded by its last response.
    """
    from tracefork_otel.tape.tape import Tape
    from tracefork_otel.wire.facts import facts_of

    told = {} if isinstance(run, Tape) else run.store.start_attributes(run.run_id, run.launch_id)
    answers = (found for one in reversed(run.exchanges) if (found := facts_of(one)) is not None)
    return Graded(
        run_id=run.run_id,
        output=told.get("tracefork.result"),
        exit_status=run.start.exit_status,
        last_text=next((found.text for found in answers), ""),
    )
