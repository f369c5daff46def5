"""The trials of an experiment as they end, each a line on disk at once, so that none is paid for twice."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracefork_otel.errors import StoreError, UsageError
from tracefork_otel.files import make_new, own_folder

from .trials import Trial, TrialRequest

_FORMAT = "tracefork blame journal"
_VERSION = 2
_FOLDER = "blame"
_ENDING = ".journal.jsonl"

# What is written outlives the process, killed or not. Only a power cut takes what was not synced: no more
# than this many seconds of trials, which then are run again.
_SYNC_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord(Trial):
    """A trial that has ended."""

    seq: int
    """Its place in the order in which trials ended."""
    run_id: str
    status: str
    """`flip`, `no_flip` or `undefined`."""
    undefined_reason: str | None
    outcome: bool | None
    tail_sha256: str
    calls_live: int
    cost_usd: float | None
    started_ns: int
    ended_ns: int
    calls_memo: int = 0
    """Calls that were answered as an earlier trial of the replicate was."""

    @property
    def flipped(self) -> bool | None:
        """Whether the run came out otherwise than the recorded one; None if nobody can say."""
        return None if self.status == "undefined" else self.status == "flip"

    @property
    def seen(self) -> tuple[bool | None, str, bool]:
        """What a search is told of it."""
        return self.flipped, self.tail_sha256, self.calls_memo > 0


def record_of(
    request: TrialRequest, *, outcome: bool | None, parent: bool, why: str | None, **told: Any
) -> TrialRecord:
    """Return the record of a trial that was asked for so and ended so."""
    status = "undefined" if outcome is None else "flip" if outcome != parent else "no_flip"
    asked = {field.name: getattr(request, field.name) for field in dataclasses.fields(Trial)}
    reason = (why or "oracle_abstain") if outcome is None else None
    return TrialRecord(status=status, undefined_reason=reason, outcome=outcome, **asked, **told)


class Journal:
    """An experiment's file, held by one process at a time."""

    def __init__(self, store: Path, experiment_id: str, header: Mapping[str, Any] | None = None) -> None:
        """With a header it is a new file; without, the one that is there is gone on with."""
        self.experiment_id = experiment_id
        self.path = path_of(store, experiment_id)
        self.trials: list[TrialRecord] = []
        self._synced = -_SYNC_S
        try:
            own_folder(self.path.parent)
            if header is None:
                self._file = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            else:
                self._file = make_new(self.path, os.O_RDWR)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be opened ({error.strerror or error})") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise UsageError(f"experiment {experiment_id} is running in another process") from None
        if header is None:
            self.header, self.trials, length = read(self.path)
            os.ftruncate(self._file, length)  # a line that a kill cut in two
            os.lseek(self._file, length, os.SEEK_SET)
        else:
            self.header = dict(header)
            self._line({"format": f"{_FORMAT} {_VERSION}", "experiment_id": experiment_id, **header})

    def limit(self, budget_usd: float | None, max_trials: int | None) -> None:
        """Keep other limits than the experiment had so far."""
        limits = {"budget_usd": budget_usd, "max_trials": max_trials}
        if limits != limits_of(self.header):
            self._line({"limits": limits})
            self.header = _limited(self.header, limits)

    def append(self, trial: TrialRecord) -> None:
        """Keep a trial, on disk."""
        self._line(dataclasses.asdict(trial))
        self.trials.append(trial)

    def _line(self, value: Mapping[str, Any]) -> None:
        line = json.dumps(value, ensure_ascii=False, default=_listed).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._file, line) :]
            self._sync()
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written ({error.strerror or error})") from error

    def _sync(self, *, at_once: bool = False) -> None:
        if at_once or time.monotonic() >= self._synced + _SYNC_S:
            os.fsync(self._file)
            self._synced = time.monotonic()

    def close(self) -> None:
        """Let another process go on with it."""
        try:
            with contextlib.suppress(OSError):
                self._sync(at_once=True)
        finally:
            os.close(self._file)


def _listed(value: object) -> object:
    if isinstance(value, frozenset):
        return sorted(value)
    return str(value)


def read(path: Path) -> tuple[dict[str, Any], list[TrialRecord], int]:
    """Return the header, the trials, and how many bytes of the file are whole lines."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error})") from error
    whole = data[: data.rfind(b"\n") + 1]
    try:
        first, *lines = (json.loads(line) for line in whole.splitlines())
        header = _header(first, path)
        trials: list[TrialRecord] = []
        for line in lines:
            if "limits" in line:
                header = _limited(header, line["limits"])
            else:
                told = {**line, "steps": tuple(line["steps"]), "altered": tuple(line["altered"])}
                trials.append(TrialRecord(**told))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: is no journal of an experiment, or a damaged one ({error})") from error
    return header, trials, len(whole)


def limits_of(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return the limits of an experiment, None for what is not limited."""
    return {"budget_usd": header["budget_usd"], "max_trials": header["plan"]["max_trials"]}


def _limited(header: Mapping[str, Any], limits: Mapping[str, Any]) -> dict[str, Any]:
    """Return the header with these limits."""
    plan = {**header["plan"], "max_trials": limits["max_trials"]}
    return {**header, "budget_usd": limits["budget_usd"], "plan": plan}


def _header(first: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the header as this version has it; raises ValueError if it is none."""
    name, _, version = str(first.pop("format")).rpartition(" ")
    if name != _FORMAT or not version.isdigit():
        raise ValueError("another format")
    if int(version) > _VERSION:
        raise UsageError(
            f"{path}: its format, {_FORMAT} {version}, is newer than {_VERSION}, the newest that is read "
            "here: upgrade tracefork-otel"
        )
    return {**first, "settings": _named(first["settings"])} if version == "1" else first


# The flags of format 1 in their places.
_ORACLE_1 = ("success_re", "failure_re", "field", "exit_code", "oracle")
_JUDGE_1 = ("judge", "judge_model", "judge_rates")
_CHANGE_1 = ("ablate", "resample", "noop", "repair", "fault", "edit")


def _named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of format 1, where flags were known by their places, with their names."""
    if "oracle" not in settings:
        return dict(settings)
    *oracle, judge = settings["oracle"]
    given = {
        "oracle": zip(_ORACLE_1 + _JUDGE_1, (*oracle, *judge), strict=True),
        "change": zip(_CHANGE_1, settings["change"], strict=True),
    }
    return {
        **settings,
        **{group: {name: v for name, v in flags if v not in (None, False)} for group, flags in given.items()},
    }


def path_of(store: Path, experiment_id: str) -> Path:
    """Return where the journal of an experiment is."""
    return store / _FOLDER / f"{experiment_id}{_ENDING}"


def find(store: Path, prefix: str) -> str:
    """Return the one experiment whose id begins so, `last` the newest; raise UsageError if there is none."""
    found = sorted((store / _FOLDER).glob(f"*{_ENDING}"), key=lambda path: path.stat().st_mtime_ns)
    return the_one([path.name.removesuffix(_ENDING) for path in found], prefix, "experiment")


def the_one(ids: Sequence[str], prefix: str, kind: str) -> str:
    """Return the one id that begins so, `last` being the last of them; raises UsageError if there is none."""
    fitting = list(ids[-1:]) if prefix == "last" else [one for one in ids if one.startswith(prefix)]
    if len(fitting) == 1:
        return fitting[0]
    near = ", ".join(one[:8] for one in (fitting or ids)[-5:])
    what = "several experiments begin" if fitting else f"no {kind} begins"
    raise UsageError(f"{what} with {prefix}" + (f": there is {near}" if near else "; `blame RUN` makes one"))
