"""The settings page names every variable that is read, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from tracefork_otel import settings

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "settings.md"
RECORDED = {"TRACEFORK_PROXY"}
"""Kept in a recorded environment by ourselves: nobody sets it."""
_NAME = re.compile(r"TRACEFORK_[A-Z_]+")


def named_in(package: str) -> set[str]:
    """The variables that the files of a package name."""
    files = (ROOT / package).rglob("*.py")
    return {name for file in files for name in _NAME.findall(file.read_text())} - RECORDED


def test_the_page_and_the_code_name_the_same_variables() -> None:
    """Each variable that either package names is documented, and each documented one exists."""
    documented = set(re.findall(r"`(TRACEFORK_[A-Z_]+)`", PAGE.read_text()))
    assert documented == named_in("tracefork_otel") | named_in("backend")


def test_the_agents_package_reads_what_its_table_holds() -> None:
    """No file of the agent's package reads a variable beside the table of settings."""
    table = set(_NAME.findall(Path(settings.__file__).read_text()))
    assert named_in("tracefork_otel") == table
