"""The beginning of it: what a replay or fork was given, in a process of the agent."""

from __future__ import annotations

from ..session.session import Session
from ..state.giving import read_places
from ..undo import Undo
from .caches import private_caches
from .databases import Databases
from .places import Places
from .redirect import redirect, redirect_changes, redirect_databases, redirect_native
from .started import lead_programs
from .writes import watch_writes


def use_copies(session: Session, undo: Undo) -> None:
    """Have this process work on the copies that its replay or fork was given, until that is undone."""
    folder = session.settings.private
    if folder is None:
        return
    settings = session.settings
    files = filter(None, (settings.tape, settings.intervention))
    ours = (folder, settings.store, *(file.parent for file in files))
    places = Places(read_places(folder), spared=ours)
    undo.add(places.end)  # what took one of our functions for its own goes on to use it
    changes = watch_writes(session, ours, undo)
    redirected = False

    def use(path: str, copy: str) -> bool:
        nonlocal redirected
        if places.has(path):
            return False
        places.add(path, copy)
        if not redirected:
            redirected = True
            redirect(places, undo, changes)
        return True

    databases = None
    if settings.tools != "live":  # what is live may change what is there
        databases = Databases(session, folder, places, use=use, spared=ours)
        redirect_databases(places, undo, databases.opens)
        redirect_changes(places, undo, removes=databases.removes, overwrites=databases.overwrites)
    if places:
        redirected = True
        redirect(places, undo, changes)
    if databases is not None:
        databases.meet()
    redirect_native(places, undo, changes)
    lead_programs(places, undo)
    private_caches(session, folder, use, undo)
