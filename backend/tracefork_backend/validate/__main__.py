"""One part of the experiments with real forks: lines of JSON say how far it is, and what it measured."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

from .real import PARTS


def _tell(said: dict[str, Any]) -> None:
    print(json.dumps(said), flush=True)


def main() -> None:
    """Run the part that the command line names."""
    part, quick = sys.argv[1], sys.argv[2] == "quick"
    rows = PARTS[part](quick=quick, on_step=lambda done, of: _tell({"done": done, "of": of}))  # type: ignore[index]
    _tell({"rows": [dataclasses.asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
