"""The store, read: runs, exchanges, SQL. DuckDB is used nowhere else."""

from __future__ import annotations

from .compacting import compact, drop_before
from .diagnosis import DoctorReport, doctor
from .refs import parse_ref
from .store import Kind, Run, Step, Store, open_store

__all__ = [
    "DoctorReport",
    "Kind",
    "Run",
    "Step",
    "Store",
    "compact",
    "doctor",
    "drop_before",
    "open_store",
    "parse_ref",
]
