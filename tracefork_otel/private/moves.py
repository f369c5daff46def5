"""Files moved and linked where the system cannot: between the disk of a copy and that of its original."""

from __future__ import annotations

import errno
import os
import shutil
from typing import Any


def copy_beside(src: Any, dst: Any) -> None:
    """Have the file stand at both paths, where it cannot be one and the same."""
    if os.path.lexists(dst):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), src, None, dst)
    shutil.copy2(src, dst, follow_symlinks=False)


def move(src: Any, dst: Any) -> None:
    """Move it, also to another disk; an empty folder is replaced, and by a folder alone."""
    if os.path.isdir(dst) and not os.path.islink(dst):
        if not os.path.isdir(src) or os.path.islink(src):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), src, None, dst)
        os.rmdir(dst)
    elif os.path.isdir(src) and os.path.lexists(dst):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), src, None, dst)
    shutil.move(os.fsdecode(src), os.fsdecode(dst))
