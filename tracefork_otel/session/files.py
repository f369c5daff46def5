"""The files that an agent keeps, as they are when its recording begins in this process."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from ..errors import TraceforkError
from ..log import LOG
from ..state.keeping import WITHIN_S, in_use, keep, look_of
from ..state.kept import text_of
from ..tape.start import CALL_STATE, CALL_STATE_LOST, STATE, STATE_LOST
from . import spans
from .session import Session

_WITHIN_S = 2.0
"""So long a call waits for a moment in which its files are not written: it is the application's own time."""


def keep_files(session: Session) -> None:
    """Keep what the settings name, for all runs of this process; what cannot be kept, each run says.

    In a process of a command that is recorded it is the command's, as far as that has not kept it itself.
    """
    settings = session.settings
    if not settings.state or settings.mode != "record":
        return
    if session.kept is None:
        session.kept = ExitStack()
        # As long as this process may begin a run.
        session.kept.enter_context(in_use(settings.store))
    session.seen = look_of(settings.state, settings.store)
    session.files = session.files_now = _kept(session, WITHIN_S)
    if session.launched:
        session.note("state", session.files)


def files_of_call(session: Session) -> dict[str, object]:
    """Return what is kept of the files as an agent is called, as attributes of the call.

    There are none for a call inside of another one, or in a process of a command that is recorded: a replay
    repeats that other call, or the command.
    """
    settings = session.settings
    if not settings.state or settings.mode != "record" or session.launched or session.kept is None:
        return {}
    parent = spans.current_parent(session)
    if parent is not None and parent.span is not None and parent.span.trace_id in session.called:
        return {}
    seen, files = look_of(settings.state, settings.store), session.files_now
    if seen is None or seen != session.seen:
        files = session.files_now = _kept(session, _WITHIN_S)
        session.seen = seen
    names = {STATE: CALL_STATE, STATE_LOST: CALL_STATE_LOST}
    return {names[name]: value for name, value in files.items()}


def _kept(session: Session, within_s: float) -> Mapping[str, object]:
    settings, look = session.settings, session.redactor.why_not_kept
    try:
        kept = keep(settings.state, settings.store, limit=settings.state_limit, look=look, within_s=within_s)
        return {STATE: text_of(kept)}
    except (TraceforkError, OSError) as error:
        LOG.warning("tracefork: no state is kept, so its runs cannot be replayed: %s", error)
        return {STATE_LOST: f"its state was not kept: {error}"}
