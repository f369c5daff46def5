"""A start of an agent on another machine, as bytes: what it takes there, and what came of it."""

from __future__ import annotations

import json
import os
import re
import struct
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

from tracefork_otel import shapes
from tracefork_otel.errors import TapeError
from tracefork_otel.files import make_new, own_folder

from ..agents.left import Left
from ..agents.output import Output
from .spending import Share
from .starting import Ended

Work: TypeAlias = Callable[[bytes], bytes]
"""Gives what came of a job."""

FORMAT = 1
_TOLD = "told.json"
_TAPE = "run.tape.jsonl"
_NAME = re.compile(r"(?:trial|shared)/(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/){0,4}[A-Za-z0-9_-][A-Za-z0-9._-]*")
"""A file below a trial's folder, or one that trials share: no name leads out of it, none is hidden."""
LARGEST = 4 * 2**30
"""Bytes that are taken of a result: an agent may record more than memory has room for, nobody may send it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One start: the tape, what is changed, and how."""

    director: str
    """Names who asks: the jobs of one share what a worker keeps of their tape."""
    run_id: str
    root_span_id: str
    """The run that it is to be, and its root's span."""
    settings: Mapping[str, str]
    """How its tape is played, as in an environment."""
    agent: str | None
    portable: bool
    go_on: bool
    allow_drift: bool
    """Whether a worker may have another Python, other packages or another commit."""
    timeout: float | None
    share: Share | None
    """What the budget has set aside for it; None where there is no budget."""
    prices: tuple[tuple[str, float, float], ...] = ()
    """Models, and what their input and output cost in USD for a million tokens."""
    tape: bytes
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """Those of its trial, `trial/NAME`, and those that trials share, `shared/NAME`."""

    def to_bytes(self) -> bytes:
        """Return it as a zip file."""
        told = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in _FILES}
        told["share"] = None if self.share is None else asdict(self.share)
        return _packed({"format": FORMAT, **told}, {_TAPE: self.tape, **self.files})

    @classmethod
    def from_bytes(cls, data: bytes) -> Job:
        """Return the job; TapeError for anything else."""
        told, files = _unpacked(data, _JOB, "job", also=(_TAPE,))
        if _TAPE not in files:
            raise TapeError("the job has no tape")
        share = told.pop("share")
        return cls(
            **told, share=None if share is None else Share(**share), tape=files.pop(_TAPE), files=files
        )


_FILES = ("tape", "files")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a job: how the agent ended, and the files of its trial; or why it was not begun."""

    ended: Ended | None = None
    refused: str | None = None
    """Why it was not begun: the fault is not this worker's alone, so no other job is sent."""
    changed: tuple[str, ...] = ()
    """Files of the worker's that the agent changed though it had a copy."""
    left: tuple[Left, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])

    def to_bytes(self) -> bytes:
        """Return it as a zip file."""
        ended = self.ended
        told: dict[str, Any] = {"format": FORMAT, "refused": self.refused, "changed": list(self.changed)}
        told["left"] = [asdict(one) for one in self.left]
        told["ended"] = None
        files = dict(self.files)
        if ended is not None:
            told["ended"] = {name: getattr(ended, name) for name in _ENDED}
            if ended.output is not None:
                told["output"] = _told(ended.output)
                if whole := ended.output.kept():
                    files[_PRINTED] = whole
        return _packed(told, files)

    @classmethod
    def from_bytes(cls, data: bytes) -> Outcome:
        """Return what came of it; TapeError for anything else."""
        told, files = _unpacked(data, _OUTCOME, "result of a job", also=(_PRINTED,))
        ended = None
        if told["ended"] is not None:
            output = told.get("output")
            ended = Ended(
                **told["ended"], output=output and _output(output, files.pop(_PRINTED, None)), result=None
            )
        return cls(
            ended=ended,
            refused=told["refused"],
            changed=told["changed"],
            left=tuple(Left(**one) for one in told["left"]),
            files=files,
        )


_PRINTED = "printed"


def _told(output: Output) -> dict[str, Any]:
    sides = {name: b64encode(getattr(output, name)).decode() for name in ("head", "tail")}
    return {**sides, "total": output.total}


def _output(told: Mapping[str, Any], whole: bytes | None) -> Output:
    if whole is not None:
        output = Output()
        output.feed(whole)
        return output
    return Output.of(b64decode(told["head"]), b64decode(told["tail"]), told["total"])


_TEXT, _MAYBE, _SECONDS = shapes.string(), shapes.optional(shapes.string()), shapes.amount
_ENDED: dict[str, shapes.Shape] = {
    "exit_status": shapes.optional(shapes.number()),
    "name": _TEXT,
    "stdout": _TEXT,
    "stderr": _TEXT,
    "seconds": _SECONDS,
    "timed_out": shapes.optional(_SECONDS),
    "stopped": shapes.boolean,
    "not_started": _MAYBE,
    "given_up": _MAYBE,
    "rested": _MAYBE,
    "no_room": _MAYBE,
    "notes": shapes.many(_TEXT),
}
_ID = shapes.text(r"[0-9a-f]{16,64}", "an id")
_SHARE = {
    "reserved_usd": _SECONDS,
    "call_usd": _SECONDS,
    "most_usd": shapes.optional(_SECONDS),
    "at_once": shapes.number(),
}
_JOB = shapes.record(
    {
        "director": _ID,
        "run_id": _ID,
        "root_span_id": _ID,
        "settings": shapes.named(_TEXT),
        "agent": _MAYBE,
        "portable": shapes.boolean,
        "go_on": shapes.boolean,
        "allow_drift": shapes.boolean,
        "timeout": shapes.optional(_SECONDS),
        "share": shapes.optional(shapes.record(_SHARE)),
        "prices": shapes.many(shapes.row(_TEXT, _SECONDS, _SECONDS)),
    }
)
_OUTCOME = shapes.record(
    {
        "refused": _MAYBE,
        "changed": shapes.many(_TEXT),
        "left": shapes.many(
            shapes.record(
                {"program": _TEXT, "what": _TEXT, "is_python": shapes.boolean, "ran": shapes.boolean}
            )
        ),
        "ended": shapes.optional(shapes.record(_ENDED)),
    },
    {
        "output": shapes.record(
            {
                "head": shapes.text(r"[A-Za-z0-9+/=]*", "Base64"),
                "tail": shapes.text(r"[A-Za-z0-9+/=]*", "Base64"),
                "total": shapes.number(),
            }
        )
    },
)

_DAMAGED = (BadZipFile, ValueError, KeyError, EOFError, OSError, RuntimeError, zlib.error, struct.error)
"""What reading a zip file raises where its bytes are damaged."""


def _packed(told: Mapping[str, object], files: Mapping[str, bytes]) -> bytes:
    held = BytesIO()
    with ZipFile(held, "w", ZIP_DEFLATED, compresslevel=1) as zipped:
        zipped.writestr(_TOLD, json.dumps(told))
        for name, data in files.items():
            zipped.writestr(name, data)
    return held.getvalue()


def _unpacked(
    data: bytes, shape: shapes.Shape, what: str, *, also: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return what is told, of its shape, and the files; TapeError where it is no such thing."""
    try:
        with ZipFile(BytesIO(data)) as zipped:
            if sum(one.file_size for one in zipped.infolist()) > LARGEST:
                raise ValueError(f"it has more than {LARGEST} bytes")
            if {one.compress_type for one in zipped.infolist()} - {ZIP_DEFLATED, ZIP_STORED}:
                raise ValueError("it is compressed in another way")
            names = [one.filename for one in zipped.infolist() if one.filename != _TOLD]
            for name in names:
                if name not in also and not _NAME.fullmatch(name):
                    raise ValueError(f"{name!a} is no name of a file in it")
            told = shapes.parsed(zipped.read(_TOLD))
            if not isinstance(told, dict) or told.get("format") != FORMAT:
                raise ValueError(f"it is not of format {FORMAT}, but of another version of tracefork-otel")
            return shape(told), {name: zipped.read(name) for name in names}
    except _DAMAGED as error:
        raise TapeError(f"this is no {what}, or a damaged one ({error})") from error


def files_of(folder: Path, *, beside: str, without: tuple[str, ...] = ()) -> Iterator[tuple[str, bytes]]:
    """Yield the regular files below the folder, named `beside/…`; not those below the folders `without`."""
    for place, folders, names in os.walk(folder):
        folders[:] = [one for one in folders if one not in without]
        for name in names:
            path = Path(place, name)
            told = f"{beside}/{path.relative_to(folder).as_posix()}"
            if path.is_file() and not path.is_symlink() and _NAME.fullmatch(told):
                yield told, path.read_bytes()


def write_files(files: Mapping[str, bytes], folder: Path, *, beside: str) -> None:
    """Write those that are named `beside/…` below the folder, for its owner alone; what is there stays."""
    for name, data in files.items():
        first, *folders, last = name.split("/")
        if first != beside:
            continue
        place = folder
        for one in folders:
            place = place / one
            own_folder(place)
        try:
            descriptor = make_new(place / last)
        except FileExistsError:
            continue
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
