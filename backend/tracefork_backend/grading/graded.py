"""What an oracle is shown of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracefork_otel.tape.tape import Tape

    from ..store import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a kind of oracle grades, so that it is not asked what it cannot tell."""

    parts: bool = False
    """Whether it can tell of a part of an output; what is not found there may be in the rest."""
    output: bool = True
    """Whether it looks at the output at all."""
    limited: bool = False
    """Whether it ends in time by itself, and raises Endless where it would not."""


NOTHING = "null"
"""What is kept of a function that returned None, which says by what it printed how it ended."""


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
    """All that it printed, of a recorded run its beginning and end; empty where that is not known."""
    stderr: str = ""
    """The beginning and the end of its errors; empty for recorded runs, of which they are not kept."""
    problem: str | None = None
    """Why the run is none to grade, such as a fork that never came to its step; such a run has no outcome."""
    left_out: int = 0
    """How many bytes of the middle of `output` are not in it: it is longer than what is kept."""
    unseen: bool = False
    """Whether nobody knows what the agent put out, so that only its last response and exit status tell."""

    @property
    def text(self) -> str:
        """What is graded, as text: the output, else the last response's text."""
        from tracefork_otel.session.result import as_text

        output = "" if self.output is None else as_text(self.output)
        return output if output.strip() else self.last_text

    @property
    def partial(self) -> bool:
        """Whether there is more to the output than is in it: what is not found in it may be there."""
        return self.left_out > 0 or self.unseen


def graded_run(run: Run | Tape) -> Graded:
    """Return what a recorded run shows an oracle: value or output as far as kept, status, last response.

    Of an output that was written to a terminal nothing is kept: it is `unseen`.
    """
    from tracefork_otel.tape.tape import Tape
    from tracefork_otel.wire.facts import facts_of

    told = {} if isinstance(run, Tape) else run.store.start_attributes(run.run_id, run.launch_id)
    answers = (found for one in reversed(run.exchanges) if (found := facts_of(one)) is not None)
    result, printed = told.get("tracefork.result"), told.get("tracefork.output")
    result = None if result == NOTHING else result
    output = printed if result is None else result
    left_out = told.get("tracefork.output.left_out" if result is None else "tracefork.result.left_out")
    return Graded(
        run_id=run.run_id,
        output=output,
        exit_status=run.start.exit_status,
        last_text=next((found.text for found in answers), ""),
        stdout=printed or "",
        left_out=left_out if isinstance(left_out, int) else 0,
        unseen=output is None,
    )
