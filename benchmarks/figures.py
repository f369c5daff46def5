"""Writes docs/figures.md from results/*.json: `python benchmarks/figures.py`."""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "figures.md"

HEAD = """\
# Figures

Each row is measured by the script named above its table (`make bench` runs all) and written to `benchmarks/results/`; this page is made from
those files by `python benchmarks/figures.py`. Targets that are missed stand here as missed. Behind a value stands where it lies at 99 %, as
far as so many runs tell. Ratios are taken in one run, the two sides in turn.
"""


AGAINST = "against.json"


def against() -> list[str]:
    """The rows of `against.py`: this checkout beside another."""
    file = HERE / "results" / AGAINST
    if not file.exists():
        return []
    found = json.loads(file.read_text())
    return [
        f"## against {found['other']}\n",
        f"Both measured in turn (rounds: {found['rounds']}), the median of each; a ratio above 1 is better than before.\n",
        f"`python benchmarks/against.py CHECKOUT`, {found['day']}, {found['machine']}:\n",
        "| what | before | after | ratio |\n|---|---|---|---|",
        *(
            f"| {row['what']} | {row['before']:,.4g} {row['unit']} | {row['after']:,.4g} {row['unit']} | {row['ratio']:.2f} × |"
            for row in found["rows"]
        ),
        "",
    ]


def page() -> str:
    parts = [HEAD, *against()]
    for path in sorted((HERE / "results").glob("*.json")):
        if path.name == AGAINST:
            continue
        result = json.loads(path.read_text())
        summary = (HERE / f"bench_{path.stem}.py").read_text().split('"""')[1].strip().split("\n\n")[0]
        parts.append(f"## {path.stem}\n\n{' '.join(summary.split())}\n")
        parts.append(f"`python benchmarks/bench_{path.stem}.py`, {result['day']}, {result['machine']}:\n")
        parts.append("| what | measured | target | |\n|---|---|---|---|")
        for row in result["figures"]:
            sign = "≥" if row["at_least"] else "≤"
            note = f" ({row['note']})" if row["note"] else ""
            met = "met" if row["met"] else "**missed**"
            between = "" if not row.get("within") else " ({:,.4g} to {:,.4g})".format(*row["within"])
            parts.append(
                f"| {row['what']}{note} | {row['value']:,.4g} {row['unit']}{between} | {sign} {row['target']:,g} | {met} |"
            )
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
