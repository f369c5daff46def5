"""The oracle that asks how the agent's process ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..flag import Flag
from .graded import Graded, How


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitCode:
    """Success by the exit status."""

    flags: ClassVar = (Flag("exit_code", "Status 0 means success."),)

    success: int
    name: str
    how: ClassVar = How(output=False)

    @classmethod
    def asked(cls, given: Mapping[str, Any]) -> ExitCode:
        """Return what the flag asks for."""
        return exit_code()

    def __call__(self, graded: Graded) -> bool | None:
        """Grade a run."""
        return None if graded.exit_status is None else graded.exit_status == self.success


def exit_code(success: int = 0) -> ExitCode:
    """Return the oracle of this exit status; it cannot tell where nobody saw the process end."""
    return ExitCode(success=success, name="exit code" if success == 0 else f"exit code {success}")
