"""The store, read: runs, exchanges, SQL. DuckDB is used nowhere else."""

from __future__ import annotations

from ._store import Store, open_store
from .run import Kind, Run, parse_ref

__all__ = ["Kind", "Run", "Store", "open_store", "parse_ref"]
