"""`python -m fuzz [TARGET…]`: as many inputs as asked for, or as long; 1 where something was found."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from .running import given_in
from .targets import TARGETS, fuzzed

SEED = int(time.time()) // 86_400
"""Of the day: the same inputs for everybody, others tomorrow. CI says its own, to fail by changes alone."""


def main() -> int:
    """Fuzz, two targets at once, and tell of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--runs", type=int, default=10**6, help="inputs a target")
    parser.add_argument("--seconds", type=float, default=1e9, help="at most so long a target")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir(), "tracefork-found"))
    parser.add_argument(
        "--again", type=Path, help="try the input in this file alone, and show what it raises"
    )
    args = parser.parse_args()
    if args.again is not None:
        TARGETS[args.again.name.rpartition("-")[0]].read(*given_in(args.again))
        return 0
    names = args.targets or list(TARGETS)
    findings = 0
    with ProcessPoolExecutor(args.jobs, max_tasks_per_child=1) as pool:
        asked = [pool.submit(fuzzed, name, args.runs, args.seconds, args.seed) for name in names]
        for answer in asked:
            name, count, took, found = answer.result()
            print(f"{name}: {count} inputs in {took:.1f} s of CPU, {len(found)} findings", flush=True)
            for finding in found:
                print(finding.text(finding.keep(args.keep)), flush=True)
            findings += len(found)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
