"""The store, read: runs, exchanges, SQL. DuckDB is used nowhere else."""

from __future__ import annotations

from ._compact import compact, drop_before
from ._doctor import DoctorReport, doctor
from ._facts import facts_of
from ._store import Store, open_store
from .run import Kind, Run, parse_ref

__all__ = [
    "DoctorReport",
    "Kind",
    "Run",
    "Store",
    "compact",
    "doctor",
    "drop_before",
    "facts_of",
    "open_store",
    "parse_ref",
]
