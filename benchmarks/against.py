"""Two checkouts of the project measured in turn on one machine: `python benchmarks/against.py OTHER`.

Each bench of the list runs as it stands in both checkouts, each with its own `.venv`, one after the other and so
for several rounds, so that drift of the machine falls on both alike. A row is a figure that both report: the median
of each and their ratio, above one where this checkout is better.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from collections import defaultdict
from pathlib import Path

from report import circumstances

HERE = Path(__file__).resolve().parent
BENCHES = ("start", "overhead", "store", "replay", "fork", "blame")
WORSE = 0.95
"""A ratio below this is named: five per cent worse."""


def measured(checkout: Path, bench: str) -> dict[str, dict[str, object]]:
    """Run the bench in the checkout and return its figures by what they measure; its result file stays as it was."""
    kept = checkout / "benchmarks" / "results" / f"{bench}.json"
    before = kept.read_bytes() if kept.exists() else None
    try:
        subprocess.run(
            [checkout / ".venv" / "bin" / "python", checkout / "benchmarks" / f"bench_{bench}.py"],
            cwd=checkout,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return {row["what"]: row for row in json.loads(kept.read_text())["figures"]}
    finally:
        if before is not None:
            kept.write_bytes(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, help="the checkout to compare with, which has a .venv")
    parser.add_argument("--benches", default=",".join(BENCHES))
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    sides = {"before": asked.other.resolve(), "after": HERE.parent}
    for checkout in sides.values():
        # A checkout whose bytecode is missing or stale, where Python may not write it, compiles at every start.
        subprocess.run([checkout / ".venv" / "bin" / "python", "-m", "compileall", "-q", "tracefork_otel", "backend"], cwd=checkout, check=True)  # fmt: skip
    rows: list[dict[str, object]] = []
    for bench in asked.benches.split(","):
        seen: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        told: dict[str, dict[str, object]] = {}
        for _ in range(asked.rounds):
            for side, checkout in sides.items():
                for what, row in measured(checkout, bench).items():
                    # Some names carry a figure of the machine in brackets.
                    name = what.partition(" (")[0]
                    seen[name][side].append(float(str(row["value"])))
                    told[name] = row
        for name, values in seen.items():
            if len(values) < 2:
                continue
            before, after = (statistics.median(values[side]) for side in sides)
            better = after / before if told[name]["at_least"] else before / after
            rows.append({"bench": bench, "what": name, "unit": told[name]["unit"], "before": before, "after": after, "ratio": better})  # fmt: skip
            flag = "" if better >= WORSE else "  WORSE"
            print(
                f"{better:6.2f} ×  {bench}: {name}: {before:,.4g} → {after:,.4g} {told[name]['unit']}{flag}",
                flush=True,
            )
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=asked.other, check=True, capture_output=True, text=True)  # fmt: skip
    document = {"other": commit.stdout.strip(), "rounds": asked.rounds, "rows": rows, **circumstances()}
    (HERE / "results" / "against.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
