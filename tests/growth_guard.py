"""A limit that tells growth from a busy machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def soon(usual_s: float) -> Iterator[None]:
    """The block took at most thirty times its usual processor time (seconds, of this thread).

    What grows with the square of its input takes thousands of times as long; a machine that does other
    things besides took five times as long. Speed itself is measured in `benchmarks/`.
    """
    begun = time.thread_time()
    yield
    spent = time.thread_time() - begun
    assert spent < 30 * usual_s, f"{spent:.2f} s where {usual_s} s are usual"
