"""Each command that answers does so for machines too."""

from __future__ import annotations

import pytest
from tracefork_backend.cli.app import VERBS, loaded

GOES_ON = {"demo", "mcp", "proxy", "serve"}
"""Commands that last until they are ended, and a walk for people."""


def answering(command: object) -> list[object]:
    """The command, or those below it."""
    parts = getattr(command, "commands", {})
    return [leaf for part in parts.values() for leaf in answering(part)] if parts else [command]


@pytest.mark.parametrize("verb", sorted(set(VERBS) - GOES_ON))
def test_each_verb_has_json(verb: str) -> None:
    """And each of its own verbs."""
    for command in answering(loaded(verb)):
        flags = [name for one in command.params for name in (*one.opts, *one.secondary_opts)]  # type: ignore[attr-defined]
        assert "--json" in flags, f"{verb} {command.name}"  # type: ignore[attr-defined]
