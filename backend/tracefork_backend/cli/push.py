"""`push`: what agents left in a spool, to a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracefork_otel.errors import UsageError
from tracefork_otel.store.spool import url_of

from ..spelling import counted
from .flags.options import JsonOption
from .output import print_json


def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that agents recorded into.")],
    bucket: Annotated[str, typer.Argument(metavar="URL", help="s3://bucket/prefix, gs:// or az://.")],
    as_json: JsonOption = False,
) -> int:
    """Store in a bucket what processes that have ended recorded into a directory.

    It may be said again: what is in the bucket is not stored twice. The directory is empty of it then. What
    is sealed into segments is not pushed: agents that record for a bucket do so with TRACEFORK_SEAL=0.
    """
    from tracefork_otel.store import manifest
    from tracefork_otel.store.bucket import Bucket, push_dead

    if (url := url_of(bucket)) is None:
        raise UsageError(f"{bucket}: this is no bucket: write s3://bucket/prefix")
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such directory")
    if manifest.load(folder).segments:
        raise UsageError(
            f"{folder}: this store is sealed into segments, which are not pushed: record with "
            "TRACEFORK_SEAL=0, or with TRACEFORK_STORE set to the bucket"
        )
    pushed = push_dead(folder, Bucket(url))
    if as_json:
        print_json({"bucket": url, "pushed": pushed})
    else:
        print(f"{url}: {counted(pushed, 'log')} pushed")
    return 0
