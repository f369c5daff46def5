"""A tape played back by the proxy, to an agent that somebody else starts."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tracefork_otel.play.intervention import Intervention
from tracefork_otel.settings import Settings
from tracefork_otel.tape.tape import Tape

from ..agents.environment import as_recorded


@contextlib.contextmanager
def playing(
    settings: Settings, tape: Tape, change: Intervention | None
) -> Iterator[tuple[Settings, dict[str, object]]]:
    """Yield the settings that play the tape, with the change made, and what the run's root says of it.

    Both are in files as long as the block lasts.
    """
    with tempfile.TemporaryDirectory(prefix="tracefork-proxy-") as folder:
        path = Path(folder) / "run.tape.jsonl"
        tape.dump(path)
        kept = as_recorded(settings, tape.start)
        # What was redacted in the recording has to be redacted to match.
        rules = kept.redact_rules or settings.redact_rules
        bodies = settings.redact_bodies if kept.redact_bodies is None else kept.redact_bodies
        played = replace(settings, mode="replay", tape=path, redact_rules=rules, redact_bodies=bodies)
        about: dict[str, object] = {"tracefork.parent.run_id": tape.run_id}
        if change is not None:
            file = Path(folder) / "intervention.json"
            change.dump(file)
            played = replace(played, mode="fork", intervention=file)
            about |= {
                "tracefork.fork.step": change.step,
                "tracefork.fork.intervention": change.label,
                "tracefork.fork.tail": change.tail,
            }
            if change.scope is not None:
                about["tracefork.fork.scope"] = change.scope
        yield played, about
