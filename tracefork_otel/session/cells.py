"""In a notebook, or IPython, a cell is a piece of work: the root of what it asks ends with it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def open_cell(ended: Callable[[Any], None]) -> tuple[str, dict[str, Any]] | None:
    """Return name and attributes of the cell that runs here, None where none does.

    At its end `ended` is called with IPython's account of it.
    """
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    if shell is None:
        return None
    if ended not in shell.events.callbacks["post_run_cell"]:
        shell.events.register("post_run_cell", ended)
    number = len(shell.user_ns.get("In", ())) - 1  # the shell's own count may be that of the next
    return f"cell {number}", {"tracefork.cell": number}
