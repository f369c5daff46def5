"""What a blame experiment found, as one page for people."""

from __future__ import annotations

from .content import About, Change, Report, change_between
from .experiment import report_of_result, report_of_stored
from .html import effects_svg, render, timeline_svg, write

__all__ = [
    "About",
    "Change",
    "Report",
    "change_between",
    "effects_svg",
    "render",
    "report_of_result",
    "report_of_stored",
    "timeline_svg",
    "write",
]
