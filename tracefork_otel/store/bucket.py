"""A store's objects in a bucket: the only place that knows how buckets are asked.

Never imported in an agent's own process: its threads do not survive `os.fork`.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from ..errors import StoreError, UsageError
from . import wal
from .wal_reading import NAME

_KEY = re.compile(r"(?P<name>.+-\d{1,9})(?P<end>\.end)?\.wal\.gz")
_PROBE = ".probe"
_MANIFEST = "MANIFEST.json"
_METADATA = "169.254.169.254"
"""Whom obstore asks for credentials where the environment has none: the machine of a cloud."""


class _Client(Protocol):
    def put(self, path: str, file: bytes, *, mode: Any = None) -> Any: ...
    def get(self, path: str) -> Any: ...
    def list(self, prefix: str) -> Any: ...
    def delete(self, paths: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Part:
    """A WAL in the bucket."""

    name: str
    """As its process named the file."""
    key: str
    last: bool
    """Whether its process wrote none after it."""

    @property
    def process(self) -> str:
        """The process that wrote it."""
        return wal.process_of(Path(self.name))

    @property
    def index(self) -> int:
        """Its place among those of its process."""
        match = NAME.fullmatch(self.name)
        return int(match["index"]) if match else 0


class Bucket:
    """The objects of one store; all that fails is a StoreError that names the store."""

    def __init__(self, url: str) -> None:
        """Connect by the cloud's own environment variables; raise UsageError without obstore."""
        try:
            exceptions: Any = import_module("obstore.exceptions")
            from_url: Any = import_module("obstore.store").from_url
        except ImportError:
            raise UsageError(f'{url}: buckets need obstore: pip install "tracefork-otel[s3]"') from None
        self.url = url
        self._errors = exceptions
        options: dict[str, Any] = {"timeout": "30s", "connect_timeout": "5s"}
        # A server on this machine, as tests and sidecars have it.
        if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
            options["allow_http"] = True
        retry = {"max_retries": 4}
        with self._named():
            self._client = cast("_Client", from_url(url, client_options=options, retry_config=retry))

    def check(self) -> None:
        """Raise StoreError if the bucket overwrites what is to be made only once."""
        if self.put_new(_PROBE, b"") and self.put_new(_PROBE, b""):
            raise StoreError(
                f"{self.url}: this bucket takes no conditional writes (If-None-Match), so what one writer "
                "stored another could overwrite: nothing was stored; use another bucket or server"
            )

    def parts(self) -> list[Part]:
        """Return the WALs in the bucket, those of one process together and in order."""
        found: list[Part] = []
        for key in self._keys("wal"):
            match = _KEY.fullmatch(key.rpartition("/")[2])
            if match and NAME.fullmatch(f"{match['name']}.wal"):
                found.append(Part(f"{match['name']}.wal", key, match["end"] is not None))
        return sorted(found, key=lambda part: (part.process, part.index))

    def push(self, path: Path, *, last: bool) -> None:
        """Store a WAL that nobody writes to any more; one that is there already is this one."""
        packed = gzip.compress(path.read_bytes(), compresslevel=6, mtime=0)
        self.put_new(f"wal/{path.name.removesuffix('.wal')}{'.end' if last else ''}.wal.gz", packed)

    def wal(self, part: Part) -> bytes | None:
        """Return what is in a WAL; None if it is gone."""
        packed = self.get(part.key)
        try:
            return None if packed is None else gzip.decompress(packed)
        except (OSError, EOFError, zlib.error) as error:
            raise StoreError(f"{self.url}/{part.key}: this is no log of ours: {error}") from error

    def manifest(self) -> tuple[bytes | None, Any]:
        """Return the manifest and what `swap` wants to know of it; None if there is none."""
        try:
            with self._named():
                found = self._client.get(_MANIFEST)
                return bytes(found.bytes()), {"e_tag": found.meta["e_tag"]}
        except FileNotFoundError:
            return None, "create"

    def swap(self, text: bytes, known: Any) -> bool:
        """Put the manifest in the place of the one that is known; return False where another came first."""
        return self._conditional(lambda: self._client.put(_MANIFEST, text, mode=known))

    def put_new(self, key: str, data: bytes) -> bool:
        """Store an object; return False if there is one of that key already, which stays."""
        return self._conditional(lambda: self._client.put(key, data, mode="create"))

    def get(self, key: str) -> bytes | None:
        """Return what is in an object; None if there is none."""
        try:
            with self._named():
                return bytes(self._client.get(key).bytes())
        except FileNotFoundError:
            return None

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        try:
            with self._named():
                self._client.delete(key)
        except FileNotFoundError:
            return

    def _keys(self, folder: str) -> Iterator[str]:
        with self._named():
            for page in self._client.list(folder):
                yield from (str(one["path"]) for one in page)

    def _conditional(self, put: Callable[[], Any]) -> bool:
        try:
            with self._named():
                put()
        except _Taken:
            return False
        return True

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (self._errors.AlreadyExistsError, self._errors.PreconditionError) as error:
            raise _Taken(str(error)) from error
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise StoreError(f"{self.url}: there is no such bucket") from error
            raise
        except (self._errors.BaseError, OSError, ValueError) as error:
            if _METADATA in str(error):
                raise StoreError(
                    f"{self.url}: there are no credentials: set AWS_ACCESS_KEY_ID and "
                    "AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL where the bucket is not Amazon's)"
                ) from error
            raise StoreError(f"{self.url}: the bucket could not be asked: {_short(error)}") from error


class _Taken(Exception):
    pass


def _short(error: BaseException) -> str:
    return " ".join(str(error).split("\n\nDebug source")[0].split())[:500]


def push_dead(store: Path, bucket: Bucket, *, known: frozenset[str] = frozenset(), keep: bool = False) -> int:
    """Store the WALs of a folder's dead processes, but for those `known`, and return how many they are.

    Unless they are to be kept, they are gone from the folder then.
    """
    by_process: dict[str, list[Path]] = {}
    for path in wal.wal_files(store):
        by_process.setdefault(wal.process_of(path), []).append(path)
    dead = [paths for paths in by_process.values() if not any(map(wal.is_live, paths))]
    fresh = [(path, path is paths[-1]) for paths in dead for path in paths if path.name not in known]
    if fresh:
        bucket.check()
    done = 0
    for path, last in fresh:
        # Held: two pushers of one folder, or an end of the process that it was of.
        fd = wal.take(path)
        if fd is None:
            continue
        try:
            bucket.push(path, last=last)
            if not keep:
                path.unlink(missing_ok=True)
            done += 1
        finally:
            wal.let_go(fd)
    return done
