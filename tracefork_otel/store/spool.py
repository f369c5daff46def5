"""A store in a bucket: its URL, and the folders of this machine that stand for it."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from ..files import store_folder, write_whole

SPOOL_MARK = ".bucket"
"""A file in a spool that says which bucket its WALs go to."""
MIRROR_MARK = ".mirror"
"""A file in a mirror."""
_URL = re.compile(r"(s3|gs|az):/+(.+)")


def url_of(store: str | Path) -> str | None:
    """Return the URL of a store in a bucket, also where a path was made of it; None for a folder."""
    match = _URL.fullmatch(str(store))
    return None if match is None else f"{match[1]}://{match[2].rstrip('/')}"


def mirror_of(url: str) -> Path:
    """Return the folder of this machine in which readers keep what is in the bucket."""
    return _folder(url) / "mirror"


def spool(url: str) -> Path:
    """Return the folder in which agents of this machine write what goes to the bucket, which exists now."""
    path = _folder(url) / "spool"
    store_folder(path)
    if not (path / SPOOL_MARK).exists():
        write_whole(path / SPOOL_MARK, url.encode())
    return path


def bucket_of(path: Path) -> str | None:
    """Return the URL that the WALs of this folder go to; None if it is no spool of ours.

    A folder of somebody's repository does not say where recordings go.
    """
    if not _is_ours(path):
        return None
    try:
        return url_of((path / SPOOL_MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def is_of_bucket(path: Path) -> bool:
    """Return whether the folder stands for a bucket, which gets its WALs: nothing is sealed there."""
    return _is_ours(path) and any((path / mark).exists() for mark in (SPOOL_MARK, MIRROR_MARK))


def _is_ours(path: Path) -> bool:
    return path.absolute().parent.parent == _cache()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "tracefork"


def _folder(url: str) -> Path:
    # Two servers may have a bucket of one name.
    whose = f"{os.environ.get('AWS_ENDPOINT_URL', '')} {url}"
    return _cache() / hashlib.sha256(whose.encode()).hexdigest()[:32]
