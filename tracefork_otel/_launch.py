"""Where the boot folder of an older command looks for the start of recording; it is in `launch`."""

from __future__ import annotations

from .launch import boot

__all__ = ["boot"]
