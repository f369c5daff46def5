"""Where agents record while they run again, and how it all gets into the store: sealed once, together."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tracefork_otel.errors import StoreError
from tracefork_otel.files import check_own, make_new, own_folder
from tracefork_otel.play.claims import Claims, claims_beside
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.store import sealing
from tracefork_otel.store.wal import wal_files
from tracefork_otel.tape.tape import Tape

_PREFIX = ".fork-"
_BEFORE = ".replay-"
"""How replays of versions before named their folders, which nobody locks."""
_OWNER = "owner"
"""Locked while the director lives, so that the next one knows what is left over."""
_STALE_S = 24 * 3600
"""No director takes a day to lock its folder, and no replay takes a day."""


@dataclass(frozen=True, slots=True)
class TrialSpace:
    """The files of one replay or fork: a store of its own, which nobody seals while it is read."""

    folder: Path
    tape: Path
    intervention: Path | None = None
    """The file of what a fork changes; None in a replay."""

    @property
    def store(self) -> Path:
        """The store's directory."""
        return self.folder / "store"

    @property
    def private(self) -> Path:
        """The folder of the agent's copies of its files."""
        return self.folder / "private"

    @property
    def claims(self) -> Claims:
        """What its processes claimed."""
        return claims_beside(self.intervention or self.tape)


class Workspace:
    """A folder beside the store's files, for whatever is made of one tape; gone when it is closed."""

    def __init__(self, store: Path | None, tape: Tape) -> None:
        """`store` is where runs are kept; None if they are not. Raises StoreError if they cannot be."""
        self.kept_in = store
        if store is not None:
            adopt_left(store)
        try:
            self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=store))
            self.folder.chmod(0o700)  # whatever the umask is
        except OSError as error:
            raise StoreError(
                f"{store}: no run can be kept here ({error.strerror}); name another store"
            ) from error
        self.tape = self.folder / "run.tape.jsonl"
        self._next = 0
        with contextlib.ExitStack() as undone:
            undone.callback(shutil.rmtree, self.folder, ignore_errors=True)
            hidden = self.folder / f".{_OWNER}"
            try:
                self._lock = make_new(hidden, os.O_RDWR)
            except OSError as error:
                raise StoreError(f"{hidden}: no run can be kept here ({error.strerror})") from error
            undone.callback(os.close, self._lock)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            os.rename(hidden, self.folder / _OWNER)  # now others can see that it is ours
            tape.dump(self.tape)
            undone.pop_all()

    def trial(self, intervention: Intervention | None = None) -> TrialSpace:
        """Return files for one fork, its intervention written, or for the one replay; from one thread."""
        folder = self.folder / str(self._next)
        self._next += 1
        own_folder(folder)
        file = None if intervention is None else folder / "intervention.json"
        beside = file or self.tape
        own_folder(beside.with_name(beside.name + ".claims"))
        if intervention is not None and file is not None:
            intervention.dump(file)
        return TrialSpace(folder, self.tape, file)

    def drop(self, space: TrialSpace) -> None:
        """Remove the files of a fork that are kept elsewhere."""
        shutil.rmtree(space.folder, ignore_errors=True)

    def settle(self) -> None:
        """Seal what was recorded so far into the store, in one segment."""
        if self.kept_in is not None:
            _keep(self.kept_in, self.folder)

    def close(self) -> None:
        """Seal everything into the store and remove the folder."""
        try:
            self.settle()
        finally:
            os.close(self._lock)
            shutil.rmtree(self.folder, ignore_errors=True)


def adopt_left(store: Path) -> None:
    """Take what directors that were killed left behind into the store."""
    for folder in folders(store):
        with contextlib.suppress(OSError):
            check_own(folder)
            with _unowned(folder):
                _keep(store, folder)
                shutil.rmtree(folder)


def folders(store: Path) -> list[Path]:
    """Return the folders of directors in the store, at work or killed: each holds the tape of a run."""
    return [*store.glob(f"{_PREFIX}*"), *store.glob(f"{_BEFORE}*")]


@contextlib.contextmanager
def _unowned(folder: Path) -> Iterator[None]:
    """Own the folder within the block; raise OSError where its director lives, or may be about to own it."""
    try:
        descriptor = os.open(folder / _OWNER, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # not locked yet, or nobody ever will: by its age it is left over
        if time.time() - folder.stat().st_mtime <= _STALE_S:
            raise
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _keep(store: Path, folder: Path) -> None:
    stores = sorted((*folder.glob("*/store"), folder / "store"), key=_number)
    wals = [path for trial in stores for path in wal_files(trial)]
    if not wals:
        return
    try:
        if sealing.seal(store, wals) is not None:
            return
    except StoreError:
        pass  # whoever opens the store next seals them one by one, and says which cannot be read
    target = store / "wal"
    own_folder(target)
    for path in wals:
        if path.exists():
            os.rename(path, target / path.name)


def _number(path: Path) -> int:
    return int(path.parent.name) if path.parent.name.isdigit() else -1
