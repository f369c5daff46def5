"""The settings page names every variable that the agent's process reads, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from tracefork_otel import settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_every_setting_is_on_the_page() -> None:
    """Each TRACEFORK_ variable of the table of settings stands in the page's table."""
    source = Path(settings.__file__).read_text()
    read = set(re.findall(r"TRACEFORK_[A-Z_]+", source))
    documented = set(re.findall(r"`(TRACEFORK_[A-Z_]+)`", PAGE.read_text()))
    assert read - documented == set()
