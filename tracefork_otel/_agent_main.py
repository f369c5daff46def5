"""`python -m tracefork_otel._agent_main`, as old tapes have it: the same as `decorators.main`."""

from __future__ import annotations

import sys

from .decorators.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
