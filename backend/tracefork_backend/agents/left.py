"""Programs of a command that neither record nor are played to, told by the command's own words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracefork_otel.seam.lines import commands_of
from tracefork_otel.seam.programs import asked, asks, model_of, not_reached, out_of_reach
from tracefork_otel.session.interpreter import program_of
from tracefork_otel.store.records import Note, ProcessStarted

from ..store.absent import Absent

_LACKS = "; what it exchanged is not recorded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A program that a command's own words start, and that neither records nor is played to."""

    program: str
    what: str
    """It, and why, as the beginning of a sentence."""
    is_python: bool = True
    ran: bool = False
    """Whether it was seen to run: no words of the command tell of it."""

    @classmethod
    def of(cls, absent: Absent) -> Left:
        """Return the Python that was reached and could not record."""
        return cls(program=absent.program, what=f"the program {absent.what}")


def left_by(argv: Sequence[str], folder: str | Path, *, recording: bool) -> tuple[Left, ...]:
    """Return which programs the command starts out of reach, as far as its words, or its script's, tell.

    Nobody stands above a command as a Python of the run does above what it starts.
    """
    commands = commands_of("os.exec", (argv[0], argv))
    found = [
        Left(program=program, what=not_reached(program, why, " by the command"))
        for program, why in out_of_reach(commands, str(folder), recording=recording)
    ]
    for client, places in asked(commands, str(folder)):
        model = model_of(client, places)
        if model is not None:
            found.append(
                Left(is_python=False, program=client, what=asks(client, model, " (as the command says)"))
            )
    return tuple(dict.fromkeys(found))


def noted(left: Left, *, time_ns: int, run_id: str) -> Note:
    """Return what the run that lacks the program's exchanges says of it."""
    told = {"why": f"{left.what}{_LACKS}", **({"ran": left.program} if left.ran else {})}
    return Note(kind="incomplete", time_ns=time_ns, trace_id=run_id, attributes=told)


def left_then(notes: Iterable[Note]) -> tuple[Left, ...]:
    """Return the programs that ran out of reach when this was recorded, which nothing but that tells of."""
    found = (
        Left(program=str(note.attributes["ran"]), what=str(note.attributes["why"]).removesuffix(_LACKS))
        for note in notes
        if note.kind == "incomplete" and "ran" in note.attributes
    )
    return tuple(dict.fromkeys(found))


def still_left(left: Iterable[Left], processes: Iterable[ProcessStarted]) -> tuple[Left, ...]:
    """Return those of the programs that did not record by a line of their own after all."""
    by_themselves = {program_of(one.argv) for one in processes if one.via == "instrument" and one.argv}
    return tuple(one for one in left if one.program not in by_themselves)
