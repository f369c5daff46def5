"""Where forks record while they run, and how it all gets into the store: sealed once, together."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracefork_otel.errors import StoreError
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.play.player import Claims, claims_beside
from tracefork_otel.store import sealing
from tracefork_otel.store.wal import wal_files
from tracefork_otel.tape.tape import Tape

_PREFIX = ".fork-"
_OWNER = "owner"
"""Locked while the director lives, so that the next one knows what is left over."""
_STALE_S = 24 * 3600
"""No director takes a day to lock its folder."""


@dataclass(frozen=True, slots=True)
class TrialSpace:
    """One fork's files: a store of its own, which nobody seals while it is read."""

    folder: Path

    @property
    def store(self) -> Path:
        """The store's directory."""
        return self.folder / "store"

    @property
    def intervention(self) -> Path:
        """The intervention's file."""
        return self.folder / "intervention.json"

    @property
    def claims(self) -> Claims:
        """What the fork's processes claimed."""
        found = claims_beside(self.intervention)
        assert found is not None
        return found


class Workspace:
    """A folder beside the store's files, for the forks of one tape; gone when it is closed."""

    def __init__(self, store: Path | None, tape: Tape) -> None:
        """`store` is where forks are kept; None if they are not."""
        self._kept_in = store
        if store is not None:
            adopt_left(store)
        try:
            self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=store))
        except OSError as error:
            raise StoreError(
                f"{store}: a fork cannot be kept here ({error.strerror}); name another store"
            ) from error
        hidden = self.folder / f".{_OWNER}"
        self._lock = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.rename(hidden, self.folder / _OWNER)  # now others can see that it is ours
        self.tape = self.folder / "run.tape.jsonl"
        tape.dump(self.tape)
        self._next = 0

    def trial(self, intervention: Intervention) -> TrialSpace:
        """Files for one fork, its intervention written; called from one thread."""
        space = TrialSpace(self.folder / str(self._next))
        self._next += 1
        space.folder.mkdir(0o700)
        space.intervention.with_name(space.intervention.name + ".claims").mkdir(0o700)
        intervention.dump(space.intervention)
        return space

    def settle(self) -> None:
        """What the forks recorded so far is in the store, in one segment."""
        if self._kept_in is not None:
            _keep(self._kept_in, self.folder)

    def close(self) -> None:
        """Everything is in the store, and the folder is gone."""
        try:
            self.settle()
        finally:
            os.close(self._lock)
            shutil.rmtree(self.folder, ignore_errors=True)


def adopt_left(store: Path) -> None:
    """What directors that were killed left behind is in the store."""
    for folder in store.glob(f"{_PREFIX}*"):
        with _unowned(folder) as free:
            if free:
                with contextlib.suppress(OSError):
                    _keep(store, folder)
                    shutil.rmtree(folder)


@contextlib.contextmanager
def _unowned(folder: Path) -> Iterator[bool]:
    try:
        descriptor = os.open(folder / _OWNER, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # made, but not yet locked: it is somebody's, or was when they were killed
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _STALE_S:
                shutil.rmtree(folder, ignore_errors=True)
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def _keep(store: Path, folder: Path) -> None:
    wals = [path for trial in sorted(folder.glob("*/store"), key=_number) for path in wal_files(trial)]
    if not wals:
        return
    try:
        if sealing.seal(store, wals) is not None:
            return
    except StoreError:
        pass  # whoever opens the store next seals them one by one, and says which cannot be read
    _move(store, [path for path in wals if path.exists()])


def _move(store: Path, wals: Sequence[Path]) -> None:
    target = store / "wal"
    target.mkdir(mode=0o700, exist_ok=True)
    for path in wals:
        os.rename(path, target / path.name)


def _number(path: Path) -> int:
    return int(path.parent.name) if path.parent.name.isdigit() else -1
