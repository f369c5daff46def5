"""Facts are made without pandas, which takes longer to load than most commands run."""

from __future__ import annotations

import subprocess
import sys

ASKING = """
import sys
class Asked:
    def find_spec(self, name, path=None, target=None):
        if name == "pandas":
            raise SystemExit("pandas is asked for")
sys.meta_path.insert(0, Asked())
from tracefork_backend.store import facts
assert facts.table_of([]).num_rows == 0
assert facts.table_of([{"trace_id": "a", "span_id": "b"}]).num_rows == 1
"""


def test_no_facts_and_some_ask_for_no_pandas() -> None:
    """A segment in which nothing was asked has none."""
    subprocess.run([sys.executable, "-c", ASKING], check=True)
