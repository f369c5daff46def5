"""The page of the Python names has each of them."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


@pytest.mark.parametrize("package", ["tracefork_otel", "tracefork_backend"])
def test_page_has_each_public_name(package: str) -> None:
    """A name that is imported from the package is documented, and no other is said to be there."""
    documented = set(re.findall(rf"^::: {package}\.(\w+)$", PAGE, re.M))
    if package == "tracefork_backend":
        documented |= set(re.findall(r"`tf\.(\w+)\(", PAGE)) - {"open_store"}
        documented.add("open_store")
    public = {name for name in import_module(package).__all__ if not name.startswith("_")}
    assert documented == public


def test_each_change_can_be_made() -> None:
    """What the table of changes shows makes an edit."""
    import tracefork_backend as tf

    rows = [cell for row in re.findall(r"^\| (`tf\..*?) \|", PAGE, re.M) for cell in row.split("`")[1::2]]
    assert len(rows) > 9
    for code in rows:
        made = eval(code.replace("{…}", "{}"), {"tf": tf})
        assert made.label
