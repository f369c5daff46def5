"""Clocks, ids and randomness of the agent's own code: recorded, and served on a replay."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, NoReturn

from ..play.claims import Claims, claim_to, claims_beside
from ..tape.reads import Draw
from ..tape.start import CALLED
from .deck import Deck
from .program import own_packages
from .sources import Sources

if TYPE_CHECKING:
    from ..play.answers import Answer
    from ..play.match import Explanation
    from ..session.session import Session

LEAVE_S = 2.0
"""A process that ends at once may spend this long on writing what it drew."""

_present: Draws | None = None


class Draws:
    """This process's draws, on their way to the store and from the tape."""

    def __init__(
        self,
        recorded: Sequence[Draw],
        include: Iterable[str],
        outside: tuple[str, ...] = (),
        *,
        played: bool = True,
    ) -> None:
        """`played` is whether a tape is, if one without draws: what a library draws may be in a request."""
        self._recorded = recorded
        self._played = played
        self._processes = list(dict.fromkeys(draw.process for draw in recorded))
        self._session: Session | None = None
        self._taken: str | None = None
        """The recorded process that this one repeats."""
        self.deck = Deck(_root(), include, outside)
        self._sources = Sources(self.deck)
        if played:
            self.deck.serve(self._choose, self._is_live)
        self._sources.install()
        self._sources.replace(os, "_exit", self._leaving(os._exit))

    @property
    def waits(self) -> bool:
        """Whether no session is told of the draws yet."""
        return self._session is None

    def belong_to(self, session: Session) -> None:
        """Give the session what is drawn, and what was drawn already."""
        self._session = session
        self.deck.lanes.forks = -1  # those before were none of the agent's
        if self._taken is not None:
            self._claims()(claim_to("draws", self._processes.index(self._taken)))

    def rebind(self) -> None:
        """Replace what the agent bound to its names before, too."""
        self._sources.rebind()

    def _is_live(self) -> bool:
        session = self._session
        return session is not None and session.player is not None and not session.player.watching

    def _choose(self) -> Iterable[Draw]:
        """Return the draws of the recorded process that this one repeats: of its name, and not yet taken."""
        names, root = self._processes, self.deck.root
        fitting = [name for name in names if name.rpartition("#")[0] == root]
        program = root.partition(":")[0]
        if not fitting and "/fork#" not in root:
            if program in CALLED or self._session is None or self._session.via != "sitecustomize":
                fitting = names[:1]  # the agent's function, called in another way than it was recorded
            else:  # other arguments, such as the name of a temporary file
                fitting = [
                    name for name in names if name.partition(":")[0] == program and "/fork#" not in name
                ]
        claim = self._claims()
        for name in fitting:
            if claim(claim_to("draws", names.index(name))):
                self._taken = name
                return [draw for draw in self._recorded if draw.process == name]
        return ()

    def _claims(self) -> Claims:
        settings = None if self._session is None else self._session.settings
        if settings is None:
            return Claims()
        beside = settings.intervention if settings.mode == "fork" else settings.tape
        return Claims() if beside is None else claims_beside(beside)

    def seen(self, answer: Answer | None) -> Answer | None:
        """Return the tape's answer; where it has none, with the draws that the difference follows from."""
        if not self._played:
            return answer
        from dataclasses import replace

        from ..play.answers import Miss

        if isinstance(answer, Miss):
            return replace(answer, explanation=self.explained(answer.explanation))
        self.deck.answered()
        if getattr(answer, "phase", None) == "intervention":
            self.deck.go_live()
        return answer

    def explained(self, explanation: Explanation) -> Explanation:
        """Return the explanation with the draws quoted that the difference follows from."""
        if not self._played:
            return explanation
        from .blaming import explained

        return explained(explanation, [*self.deck.suspects, *self._sources.missing])

    def flush(self, trace_id: str | None = None) -> None:
        """Write what was drawn so far into the WAL, as one record."""
        if self._session is not None and (taken := self.deck.taken()) is not None:
            self._session.note("draws", taken, trace_id)

    def _leaving(self, leave: Callable[[int], NoReturn]) -> Callable[[int], NoReturn]:
        """Return an `os._exit` that writes the draws down: forked children end by it, without exit hooks."""

        def _exit(status: int) -> NoReturn:
            if self._session is not None:
                # Not in this thread, which a signal may have interrupted with any lock in its hands.
                thread = threading.Thread(target=self._session.flush_draws, daemon=True)
                with contextlib.suppress(RuntimeError):  # the interpreter is shutting down
                    thread.start()
                    thread.join(LEAVE_S)
            leave(status)

        return _exit

    def enter_tool(self, name: str) -> Callable[[], None]:
        """Keep what a tool draws apart, until the returned function is called: a replay may not run it."""
        return self.deck.lanes.enter("tool", name)

    def include(self, modules: Iterable[str]) -> None:
        """Count draws of these modules as the agent's own from now on."""
        self.deck.scope.forget(modules)

    def forked(self) -> None:
        """Record and serve this forked child its own."""
        self.deck.forked()
        if self.deck.serves:
            self.deck.serve(self._choose, self._is_live)

    def stop(self) -> None:
        """Put every clock back."""
        global _present
        self.flush()
        self._sources.restore()
        _present = None


def start(session: Session) -> None:
    """Keep the draws of this process from now on, and serve them if the session's tape has any."""
    global _present
    if session.draws is not None or not (_present is None or _present.waits):
        return
    try:
        present = _present
        if present is None:
            recorded = () if session.player is None else session.player.draws
            include = (*_own(recorded), *session.settings.draws_include)
            present = Draws(recorded, include, played=session.player is not None)
            if session.via != "sitecustomize":  # nothing of the agent was loaded before that
                present.rebind()
        present.belong_to(session)
        session.draws = _present = present
    except Exception as error:
        session.lost("start of the draws", error)


def prepare(recorded: Sequence[Draw], include: Iterable[str], outside: tuple[str, ...]) -> None:
    """Serve this process the draws before it has a session; forked children that get one go on from here.

    What code in a folder of `outside` draws is nobody's.
    """
    global _present
    _present = Draws(recorded, (*_own(recorded), *include), outside)


def include(modules: Iterable[str]) -> None:
    """Count draws of these modules as the agent's own in a process that has no session yet."""
    if _present is not None and _present.waits:
        _present.include(modules)


def _own(recorded: Sequence[Draw]) -> tuple[str, ...]:
    """Return the packages that are the agent's own in this process as they were in the recorded one."""
    recorded_as = recorded[0].process.partition(":")[0] if recorded else ""
    return own_packages(sys.orig_argv, recorded_as)


def _root() -> str:
    """Return the name of this process in a recording and its replay: program, digest of its arguments."""
    argv = sys.orig_argv[1:]
    # Not the code after -c, which is no name and may be long.
    first = next((word for word in argv if word == "-c" or not word.startswith("-")), "python")
    program = os.path.basename(first).replace(":", "_")
    return f"{program}:{sha256(chr(0).join(argv).encode('utf-8', 'replace')).hexdigest()[:8]}"


def _before_fork() -> None:
    if _present is not None:
        _present.deck.lanes.forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)
