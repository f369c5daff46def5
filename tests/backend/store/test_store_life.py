"""The life of a store in any order: what was not removed is readable as long as a file holds it."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from unittest.mock import patch

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)
from stored import Recorder, answered, asked
from tracefork_backend.store import compacting, doctor, open_store
from tracefork_backend.store.removing import planned, remove
from tracefork_backend.store.repairing import repair

from tracefork_otel.errors import StoreError, UsageError
from tracefork_otel.exchange import Exchange
from tracefork_otel.store import manifest, sealing, segment
from tracefork_otel.store.manifest import SegmentEntry
from tracefork_otel.store.wal import wal_files
from tracefork_otel.store.wal_reading import exchanges_of, read_wal

Held = dict[tuple[str, str], tuple[bytes, bytes]]
"""By run and span, the bodies of an exchange."""


class Killed(BaseException):
    """Stands for kill -9: nothing of ours runs any more."""


@contextmanager
def killed_at(target: object, name: str) -> Iterator[None]:
    """Whoever calls this function ends there, and cleans nothing up."""

    def end(*_: object, **__: object) -> None:
        raise Killed

    with patch.object(target, name, end), patch.object(manifest, "discard", lambda *_: None):
        try:
            yield
        except Killed:
            pass


def bodies_of(exchange: Exchange) -> tuple[bytes, bytes]:
    """The bytes of both sides."""
    return exchange.request.body, exchange.response.body if exchange.response else b""


class Life(RuleBasedStateMachine):
    """One store, and everything that was acknowledged to processes that wrote into it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="life-"))
        self.store = self.folder / "store"
        self.acknowledged: Held = {}
        self.removed: set[str] = set()
        self.doubtful: set[str] = set()
        """Runs whose removal was killed: all or nothing of them is there."""
        self.backups: list[bytes] = []
        self.logs: list[Path] = []
        self.made = 0

    def teardown(self) -> None:
        """Whatever came before, a repair brings back what there is."""
        try:
            self.settles()
        finally:
            shutil.rmtree(self.folder)

    @initialize()
    def begins(self) -> None:
        """A first run is there."""
        self.records(2, 1, torn=False)
        self.opens()

    @rule(steps=st.integers(1, 3), runs=st.integers(1, 2), torn=st.booleans())
    def records(self, steps: int, runs: int, torn: bool) -> None:
        """A process records and is gone, perhaps in the middle of a write; its log is left."""
        recorder = Recorder(self.store)
        for _ in range(runs):
            run_id = sha256(b"%d" % self.made).hexdigest()[:32]
            for step in range(steps):
                self.made += 1
                request, response = asked("shared", f"{self.made}.{step}"), answered(f"answer {self.made}")
                span_id = recorder.exchange(run_id, request, response)
                self.acknowledged[run_id, span_id] = request, response
        recorder.close()
        self.logs.append(recorder.wal.path)
        if torn:
            with recorder.wal.path.open("ab") as file:
                file.write(b"\x40\x00\x00\x00half a record")

    @rule()
    def opens(self) -> None:
        """Somebody reads, which seals."""
        try:
            open_store(self.store).close()
        except StoreError:
            assert manifest.is_damaged(self.store)

    @rule(where=st.sampled_from([(manifest, "commit"), (manifest, "_write"), (sealing, "_check_whole")]))
    def is_killed_while_it_seals(self, where: tuple[object, str]) -> None:
        """A sealer ends before the manifest names the segment, or before the log is gone."""
        if not manifest.is_damaged(self.store):
            with killed_at(*where):
                sealing.seal_dead(self.store)

    @rule()
    def compacts(self) -> None:
        """The segments become one, as far as they can be read."""
        if not manifest.is_damaged(self.store):
            with open_store(self.store) as opened:
                opened.compact()

    @rule(where=st.sampled_from([(manifest, "commit"), (manifest, "_write")]))
    def is_killed_while_it_compacts(self, where: tuple[object, str]) -> None:
        """A merge ends before the manifest names what it wrote."""
        if not manifest.is_damaged(self.store):
            with killed_at(*where):
                compacting.compact(self.store)

    @precondition(lambda self: len(self.backups) < 3)
    @rule()
    def backs_up(self) -> None:
        """The manifest of this moment is kept."""
        if (self.store / manifest.FILE).exists():
            self.backups.append((self.store / manifest.FILE).read_bytes())

    @precondition(lambda self: self.backups)
    @rule(which=st.integers(0, 2))
    def restores(self, which: int) -> None:
        """An earlier manifest is put in the place of the newest."""
        (self.store / manifest.FILE).write_bytes(self.backups[which % len(self.backups)])

    @rule(left=st.sampled_from([None, b"", b"{", b"{}"]))
    def loses_the_manifest(self, left: bytes | None) -> None:
        """The manifest is gone, or is none any more."""
        if left is None:
            (self.store / manifest.FILE).unlink(missing_ok=True)
        else:
            (self.store / manifest.FILE).write_bytes(left)

    @rule(hours=st.sampled_from([-48, -2, 2, 48]))
    def has_another_clock(self, hours: int) -> None:
        """The files were made hours ago, or will be: the clock jumped."""
        moment = time.time() + hours * 3600
        for path in self.store.rglob("*"):
            os.utime(path, (moment, moment))

    @rule(seed=st.integers(0, 99))
    def loses_a_file(self, seed: int) -> None:
        """Somebody deletes one file of a segment, or a log."""
        files = [*sorted(self.store.glob("segments/*.parquet")), *filter(Path.exists, self.logs)]
        if files:
            random.Random(seed).choice(files).unlink()

    @rule(seed=st.integers(0, 99), whole=st.booleans())
    def copies_files(self, seed: int, whole: bool) -> None:
        """Somebody copies a segment, or one file of one, to another name of that kind."""
        entries = sorted(self.ids())
        if entries:
            chosen = random.Random(seed).choice(entries)
            copy = f"{1_600_000_000_000 + self.made:013d}-{seed:06x}"
            for kind in manifest.KINDS if whole else ("exchanges",):
                path = self.store / "segments" / f"{chosen}.{kind}.parquet"
                if path.exists():
                    shutil.copy(
                        path,
                        path.with_name(f"{copy}.{kind}.parquet"),
                    )

    @precondition(lambda self: any(map(Path.exists, self.logs)))
    @rule(seed=st.integers(0, 99), cut=st.booleans())
    def copies_a_log(self, seed: int, cut: bool) -> None:
        """Somebody copies a log to the name of another, perhaps as it was some records earlier."""
        log = random.Random(seed).choice([path for path in self.logs if path.exists()])
        data = log.read_bytes()
        log.with_name(f"9-{seed:08x}-0.wal").write_bytes(data[: len(data) // 2] if cut else data)

    @rule(seed=st.integers(0, 99), forks=st.booleans(), killed=st.sampled_from([None, 0, 1]))
    def removes(self, seed: int, forks: bool, killed: int | None) -> None:
        """A run is removed, or its removal is killed before or after the manifest says so."""
        if manifest.is_damaged(self.store):
            return
        with open_store(self.store) as opened:
            runs = sorted(run.run_id for run in opened.runs())
            if not runs:
                return
            run_id = random.Random(seed).choice(runs)
            removal = planned(opened, [run_id], forks=forks)
            commits = iter(range(2))

            def commit(*given: object, **how: object) -> object:
                if next(commits) == killed:
                    raise Killed
                return original(*given, **how)  # type: ignore[arg-type]

            original = manifest.commit
            with patch.object(manifest, "commit", commit), patch.object(manifest, "discard", lambda *_: None):
                try:
                    remove(opened, removal)
                except Killed:
                    self.doubtful.add(run_id)
                except (StoreError, UsageError):
                    pass
                else:
                    self.removed.add(run_id)

    @rule()
    def is_repaired(self) -> None:
        """Somebody repairs in between."""
        repair(self.store)

    def ids(self) -> set[str]:
        """The ids of the segments of which there are files."""
        return {path.name.partition(".")[0] for path in self.store.glob("segments/[!.]*.parquet")}

    def on_disk(self) -> Held:
        """What whole segments and logs hold, named or not, of what was acknowledged."""
        found: list[Exchange] = exchanges_of([read_wal(path, copied=True) for path in wal_files(self.store)])[
            0
        ]
        for segment_id in self.ids():
            entry = SegmentEntry(id=segment_id, exchanges=0, spans=0, bytes=0, started_ns=0, ended_ns=0)
            if all(entry.file(self.store, kind).exists() for kind in manifest.RECORDED):
                found += segment.read_exchanges(self.store, entry)
        whole = [one for one in found if one.outcome == "complete" and not one.damage]
        held = {(one.trace_id, one.span_id): bodies_of(one) for one in whole}
        return {key: both for key, both in held.items() if key in self.acknowledged}

    def settles(self) -> None:
        """Time goes by, the store is repaired: what is held is read, and what was removed is not."""
        for path in self.store.glob("segments/*"):
            os.utime(path, (1, 1))
        held = self.on_disk()
        repair(self.store)
        doctor(self.store)
        with open_store(self.store) as opened:
            for run_id in {run_id for run_id, _ in held} - self.removed - self.doubtful:
                read = {(run_id, one.span_id): bodies_of(one) for one in opened.exchanges(run_id)}
                expected = {key: both for key, both in held.items() if key[0] == run_id}
                assert expected.items() <= read.items()
                assert {key: self.acknowledged[key] for key in expected} == expected
            there = {run.run_id for run in opened.runs()}
            assert there.isdisjoint(self.removed)
            assert there <= {run_id for run_id, _ in self.acknowledged}


TestLife = pytest.mark.timeout(900)(Life.TestCase)
_PROFILE = hypothesis.settings.default
_THOROUGH = _PROFILE is not None and _PROFILE.max_examples > 50
TestLife.settings = hypothesis.settings(
    max_examples=25 if _THOROUGH else 3, stateful_step_count=25 if _THOROUGH else 8, deadline=None
)
