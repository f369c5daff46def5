"""Runs targets on inputs made of good ones, each within a time and a memory, and tells what came of it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from tracefork_otel.errors import TraceforkError

from .mutating import Input, mutated

FOUND = Path(__file__).with_name("found")
"""Inputs that once raised something: one file of JSON each, by target and digest of the input."""
INPUT_S = 3.0
"""CPU seconds for one input: the slowest good one takes some 0.05 s."""
MEMORY = 4 * 1024**3
"""Address space of a process that fuzzes, of which libraries map some 1 GB."""
_DEPTH = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Something that reads what others wrote."""

    name: str
    corpus: Callable[[], list[Input]]
    """Good inputs."""
    read: Callable[..., object]
    """Is given the parts of an input; a good answer, or an error of the tree."""
    allowed: tuple[type[Exception], ...] = ()
    """What it may raise besides."""
    dear: int = 1
    """How many inputs of a cheap target one of these costs: `make fuzz` runs so many fewer."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that a target does not take."""

    target: str
    given: Input
    what: str
    where: str

    def text(self, kept_at: Path) -> str:
        """Return what was found, with the file that holds the input."""
        parts = ", ".join(
            repr(part) if len(part) < 300 else f"{part[:100]!r}… ({len(part)} bytes)" for part in self.given
        )
        return (
            f"{self.target}: {self.what}\n{self.where}  input: ({parts})\n"
            f"  again: python -m fuzz --again {kept_at}; to keep it as a test, move it into {FOUND}"
        )

    def keep(self, folder: Path) -> Path:
        """Write the input into a file, by which it can be tried again, and return that."""
        text = written(self.given)
        path = folder / f"{self.target}-{sha256(text.encode()).hexdigest()[:8]}.json"
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


def written(given: Input) -> str:
    """Return an input as its file has it: a list of texts in base64."""
    return json.dumps([base64.b64encode(part).decode() for part in given])


def given_in(path: Path) -> Input:
    """Return the input in a file."""
    return tuple(base64.b64decode(part) for part in json.loads(path.read_text()))


def kept(target: str) -> Iterator[Input]:
    """Yield the inputs that once raised something in that target."""
    for path in sorted(FOUND.glob(f"{target}-????????.json")):
        yield given_in(path)


class TooLong(BaseException):
    """An input took longer than it may."""


def tried(target: Target, given: Input) -> Finding | None:
    """Return what is wrong with how a target takes an input, None if nothing is."""
    signal.setitimer(signal.ITIMER_VIRTUAL, INPUT_S)
    try:
        target.read(*given)
    except (TraceforkError, *target.allowed):
        return None
    except TooLong:
        return Finding(target.name, given, f"takes more than {INPUT_S} s of CPU time", _where())
    except (Exception, RecursionError, MemoryError) as error:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        text = "".join(traceback.format_exception(error)[-4:-1])
        return Finding(target.name, given, f"{type(error).__name__}: {str(error)[:200]!r}", text)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return None


def _where() -> str:
    return "".join(traceback.format_exc().splitlines(keepends=True)[-_DEPTH:])


def inputs(target: Target, seed: int) -> Iterator[Input]:
    """Yield the corpus, what once raised something, and from then on inputs made of both."""
    rng = random.Random(f"{seed} {target.name}")
    corpus = [*target.corpus(), *kept(target.name)]
    rng.shuffle(corpus)
    yield from corpus
    pool = list(corpus)
    while True:
        made = mutated(rng.choice(pool), corpus, rng)
        yield made
        # Some go on from what was made, so that changes add up; the pool stays small.
        if rng.random() < 0.02 and sum(map(len, made)) < 50_000:
            if len(pool) < 4 * len(corpus) + 50:
                pool.append(made)
            else:
                pool[rng.randrange(len(corpus), len(pool))] = made


def fuzz(
    target: Target, *, runs: int, seconds: float, seed: int, most: int = 20
) -> tuple[int, float, list[Finding]]:
    """Return how many inputs were tried, in which CPU time, and what was found, each kind once."""
    found: dict[str, Finding] = {}
    count, begun, end = 0, time.process_time(), time.monotonic() + seconds
    for given in inputs(target, seed):
        if count >= runs or time.monotonic() >= end or len(found) >= most:
            break
        count += 1
        finding = tried(target, given)
        if finding is not None:
            # The same place raises the same: the last lines of the traceback tell one kind from another.
            found.setdefault(finding.what.partition(":")[0] + finding.where[-300:], finding)
    return count, time.process_time() - begun, list(found.values())


@contextlib.contextmanager
def bounded(memory: int | None = MEMORY) -> Iterator[None]:
    """Let an input that takes too long or too much be a finding and not the end of the process."""
    before = signal.signal(signal.SIGVTALRM, _late)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limits[0] if memory is None else memory, limits[1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _late(number: int, frame: Any) -> None:
    raise TooLong


def in_files(read: Callable[[Path], object], name: str) -> Callable[[bytes], object]:
    """Return a reader of bytes for a reader of files: in memory where the machine has a folder there."""
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(os.environ.get("TMPDIR", "/tmp"))
    path = folder / f"tracefork-fuzz-{os.getpid()}" / name

    def write_and_read(data: bytes) -> object:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return read(path)

    return write_and_read
