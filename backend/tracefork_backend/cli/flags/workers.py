"""The flags that say who runs the agents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from . import Flags
from .options import valued


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFlags(Flags):
    """How many agents run at a time, and who runs them."""

    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Agents at a time (default: as many as there are workers, or 4)."),
    ] = None
    executor: Annotated[
        str | None,
        valued(
            "--executor",
            "ENGINE",
            "Who runs them: process, ray, dask://HOST:PORT or PKG.MOD:FACTORY (default: this process).",
        ),
    ] = None
    allow_drift: Annotated[
        bool,
        typer.Option(
            "--allow-drift", help="Workers may have another Python, other packages or another commit."
        ),
    ] = False

    @contextmanager
    def at_work(self, jobs: int = 4, **also: Any) -> Iterator[dict[str, Any]]:
        """Give who works, and what is said `also`, as arguments of `fork`, `matrix` and `blame`.

        `jobs` is how many agents run at a time where neither the user nor the executor tells.
        """
        if self.executor is None:
            yield {"jobs": self.jobs or jobs, **also}
            return
        from ...executors.engines import opened

        with opened(self.executor) as engine:
            yield {
                "jobs": self.jobs or engine.width or jobs,
                "executor": engine.executor,
                "allow_drift": self.allow_drift,
                **also,
            }
