"""A process of its own that stores in the bucket what dead processes left in a spool."""

from __future__ import annotations

import sys
from pathlib import Path

from .errors import TraceforkError
from .store.bucket import Bucket, push_dead
from .store.spool import bucket_of


def main(folder: str) -> int:
    """Push the spool; say on standard error what could not be, and return 1 then."""
    path = Path(folder)
    url = bucket_of(path)
    if url is None:
        print(f"tracefork: {path}: this is no spool of a bucket; nothing was pushed", file=sys.stderr)
        return 2
    try:
        push_dead(path, Bucket(url))
    except (TraceforkError, OSError) as error:
        print(
            f"tracefork: the recording is kept in {path} and not yet in the bucket: {error}. "
            f"The next recording here pushes it, or: tracefork-otel push {path} {url}",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
