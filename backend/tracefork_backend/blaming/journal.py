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

from tracefork_otel import shapes
from tracefork_otel.errors import StoreError, UsageError
from tracefork_otel.files import make_new, own_folder, read_whole
from tracefork_otel.tape.marks import is_mark, mark_of

from ..rerun.trust import TRUST, NotTrusted, trusted
from ..spelling import shown
from .shapes import FORMATTED, HEADER, LIMITS, LISTED, SETTINGS, TRIAL
from .trials import Trial, TrialRequest

_FORMAT = "tracefork blame journal"
_VERSION = 2
_FOLDER = "blame"
_MARK = "blame"
_BLAME = "journal"
REPAIR = "repair"
"""What the journal of a search for repairs is called; blame's own does not go on with it."""
_ENDING = ".{kind}.jsonl"

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
    grading_usd: float | None = None
    """What its grading cost; None where an older version did not say."""
    booked_usd: float | None = None
    """What it counts with in the budget, which is more than it cost where calls of it have no price."""
    unpriced: int | None = None
    """So many of its live calls have no price; None where an older version did not say."""

    @property
    def flipped(self) -> bool | None:
        """Whether the run came out otherwise than the recorded one; None if nobody can say."""
        return None if self.status == "undefined" else self.status == "flip"

    def counts_usd(self, worst_usd: float) -> float:
        """Return what it counts with in a budget, its grading at that worst where it is not told."""
        booked = (self.cost_usd or 0.0) if self.booked_usd is None else self.booked_usd
        return booked + (worst_usd if self.grading_usd is None else self.grading_usd)

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

    def __init__(
        self,
        store: Path,
        experiment_id: str,
        header: Mapping[str, Any] | None = None,
        *,
        kind: str = _BLAME,
    ) -> None:
        """With a header it is a new file; without, the one that is there is gone on with."""
        self.experiment_id = experiment_id
        self.path = path_of(store, experiment_id, kind)
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
            mark = mark_of(_MARK, experiment_id, _what_runs(header), make=True)
            told = {"format": f"{_FORMAT} {_VERSION}", "experiment_id": experiment_id, **header}
            try:
                self._line({**told, "mark": mark} if mark else told)
            except StoreError:
                self.path.unlink()  # no experiment has begun
                os.close(self._file)
                raise

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
        whole = os.lseek(self._file, 0, os.SEEK_CUR)
        try:
            while line:
                line = line[os.write(self._file, line) :]
            self._sync()
        except OSError as error:
            with contextlib.suppress(OSError):  # what follows must not stand behind half a line
                os.ftruncate(self._file, whole)
                os.lseek(self._file, whole, os.SEEK_SET)
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
        data = read_whole(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error})") from error
    whole = data[: data.rfind(b"\n") + 1]
    try:
        first, *lines = map(shapes.parsed, whole.splitlines())
        header = _header(first, path)
        trials: list[TrialRecord] = []
        for line in lines:
            if limits := LIMITS(line):
                header = _limited(header, limits["limits"])
            else:
                trials.append(TrialRecord(**TRIAL(line)))
    except ValueError as error:
        raise StoreError(f"{path}: is no journal of an experiment, or a damaged one ({error})") from error
    return header, trials, len(whole)


def check_from_here(header: Mapping[str, Any], settings: Mapping[str, Any], *, trust: bool) -> None:
    """Raise NotTrusted, which shows them, if the functions that the settings name may not be run.

    A journal names functions to be imported, as a run does: it is believed where this user's key marked it.
    """
    experiment_id = header["experiment_id"]
    ours = is_mark(header.get("mark"), _MARK, experiment_id, _what_runs(header))
    if ours or trusted(trust=trust):
        return
    what = {"agent": settings["how"].get("agent"), **settings["oracle"], **settings["change"]}
    lines = [f"  {shown(name):<12} {shown(str(value))}" for name, value in what.items() if value is not None]
    raise NotTrusted(
        "\n".join(
            [
                f"experiment {shown(experiment_id)} was not begun by you on this machine, or was changed, "
                "so it does not go on:",
                *lines,
                f"go on with it by --trust ({TRUST}=1)",
            ]
        )
    )


def as_read(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return the header as its file gives it back."""
    return json.loads(json.dumps(header, default=_listed))


def _what_runs(header: Mapping[str, Any]) -> object:
    """Return what of the header says what is run, as its file gives it back."""
    read_back = as_read(header)
    return [read_back["run_id"], read_back["settings"]]


def limits_of(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return the limits of an experiment, None for what is not limited."""
    return {"budget_usd": header["budget_usd"], "max_trials": header["plan"]["max_trials"]}


def settings_of(header: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return what the command asked for that began the experiment; UsageError if no command did."""
    if "oracle" not in header["settings"]:
        raise UsageError(f"experiment {header['experiment_id']} was begun from Python: resume it there")
    try:
        return SETTINGS(header["settings"])
    except ValueError as error:
        raise StoreError(f"{path}: what was asked for cannot be read ({error})") from error


def _limited(header: Mapping[str, Any], limits: Mapping[str, Any]) -> dict[str, Any]:
    """Return the header with these limits."""
    plan = {**header["plan"], "max_trials": limits["max_trials"]}
    return {**header, "budget_usd": limits["budget_usd"], "plan": plan}


def _header(first: object, path: Path) -> dict[str, Any]:
    """Return the header as this version has it; raises ValueError if it is none."""
    name, _, version = FORMATTED(first)["format"].rpartition(" ")
    if name != _FORMAT or not version.isascii() or not version.isdigit() or len(version) > 9:
        raise ValueError("another format")
    if int(version) > _VERSION:
        raise UsageError(
            f"{path}: its format, {_FORMAT} {version}, is newer than {_VERSION}, the newest that is read "
            "here: upgrade tracefork-otel"
        )
    header = HEADER(first)
    return {**header, "settings": _named(header["settings"])} if version == "1" else header


# The flags of format 1 in their places.
_ORACLE_1 = ("success_re", "failure_re", "field", "exit_code", "oracle")
_JUDGE_1 = ("judge", "judge_model", "judge_rates")
_CHANGE_1 = ("ablate", "resample", "noop", "repair", "fault", "edit")


def _named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of format 1, where flags were known by their places, with their names."""
    if "oracle" not in settings:
        return dict(settings)
    *oracle, judge = LISTED(settings["oracle"])
    given = {
        "oracle": zip(_ORACLE_1 + _JUDGE_1, (*oracle, *LISTED(judge)), strict=True),
        "change": zip(_CHANGE_1, LISTED(settings.get("change")), strict=True),
    }
    return {
        **settings,
        **{group: {name: v for name, v in flags if v not in (None, False)} for group, flags in given.items()},
    }


def path_of(store: Path, experiment_id: str, kind: str = _BLAME) -> Path:
    """Return where the journal of an experiment is."""
    return store / _FOLDER / f"{experiment_id}{_ENDING.format(kind=kind)}"


def find(store: Path, prefix: str) -> str:
    """Return the one experiment whose id begins so, `last` the newest; raise UsageError if there is none."""
    return the_one(experiments(store), prefix, "experiment")


def experiments(store: Path, kind: str = _BLAME) -> list[str]:
    """Return the ids of the experiments that have a journal, finished or not; the newest is the last."""
    ending = _ENDING.format(kind=kind)
    found = sorted((store / _FOLDER).glob(f"*{ending}"), key=lambda path: path.lstat().st_mtime_ns)
    return [path.name.removesuffix(ending) for path in found]


def the_one(ids: Sequence[str], prefix: str, kind: str, *, made_by: str = "blame RUN") -> str:
    """Return the one id that begins so, `last` being the last of them; raises UsageError if there is none."""
    fitting = list(ids[-1:]) if prefix == "last" else [one for one in ids if one.startswith(prefix)]
    if len(fitting) == 1:
        return fitting[0]
    near = ", ".join(one[:8] for one in (fitting or ids)[-5:])
    what = "several experiments begin" if fitting else f"no {kind} begins"
    more = f": there is {near}" if near else f"; `{made_by}` makes one"
    raise UsageError(f"{what} with {prefix}{more}")
