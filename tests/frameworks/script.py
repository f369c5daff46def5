"""A small agent as a script, recorded, read, replayed and forked by the command line."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from answering import Answering
from e2e.command import Typed, tracefork
from tracefork_backend.store import open_store


@dataclass(frozen=True, slots=True)
class Script:
    """An agent's source in a folder of its own, and the server that it asks, as the variable `FAKE`."""

    folder: Path
    server: Answering
    source: str

    def record(self, *, says: str, steps: int) -> None:
        """Run the agent by `tracefork-otel run`; it says this, and the run is whole."""
        (self.folder / "agent.py").write_text(self.source)
        ran = self.typed("run", "--", sys.executable, "agent.py")
        assert (ran.status, ran.out.strip()) == (0, says), ran.err
        (row,) = self.typed("ls", "--json").rows
        assert (row["steps"], row["complete"], row["status"]) == (steps, True, "ok"), row

    def replay(self) -> None:
        """Replay it exactly, with no request."""
        before = len(self.server.requests)
        again = self.typed("replay", "last")
        assert again.status == 0, again.out + again.err
        assert "PASS" in again.out
        assert len(self.server.requests) == before

    def fork(self, at: int, *words: str, says: str) -> dict[str, Any]:
        """Fork the first run at a step, and return what the command tells of it; the agent then says this."""
        run_id = self.rows("select run_id from runs where kind = 'record'")[0][0]
        forked = self.typed("fork", f"{run_id}@{at}", *words, "--json")
        assert forked.status == 0, forked.out + forked.err
        (fork,) = forked.rows
        assert says in forked.out, fork
        return fork

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what SQL gives over the store."""
        with open_store(self.folder / ".tracefork") as store:
            return store.sql(query).fetchall()

    def typed(self, *words: str) -> Typed:
        """Run the command `tracefork-otel WORDS`."""
        return tracefork(*words, cwd=self.folder, FAKE=self.server.url)
