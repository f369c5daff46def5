"""The oracle that somebody wrote: a function by its path, or what an installed package gives by a name."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tracefork_otel.errors import UsageError

from ..flag import Flag
from .apart import Apart
from .graded import Graded

if TYPE_CHECKING:
    from importlib import metadata

GROUP = "tracefork.oracles"
"""The entry points by which packages give oracles: a name, and a function of `Graded`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """Somebody's function."""

    flags: ClassVar = (
        Flag(
            "oracle",
            "A function that says what is success, or the name of an installed oracle.",
            "PKG.MOD:FN|NAME",
        ),
    )

    call: Callable[[Graded], Any] = dataclasses.field(repr=False)
    name: str
    apart: Apart = dataclasses.field(repr=False, compare=False)
    """What asks it where nothing could end it here."""

    @classmethod
    def asked(cls, given: Mapping[str, Any]) -> Function:
        """Return what the flag asks for."""
        named: str = given["oracle"]
        return function(named) if ":" in named else installed(named)

    def __call__(self, graded: Graded) -> bool | None:
        """Grade a run."""
        return self.call(graded)


def function(path: str) -> Function:
    """Return the oracle that `pkg.mod:fn` names, looked for here too; raise UsageError if there is none."""
    from tracefork_otel.decorators.main import find

    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        importlib.invalidate_caches()
        found = find(path)
    except Exception as error:
        why = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise UsageError(f"the oracle {path} cannot be imported: {why}") from error
    finally:
        if added:
            sys.path.remove(here)
    return Function(call=found, name=path, apart=Apart(path))


def installed(name: str) -> Function:
    """Return the oracle that an installed package gives by this name; raises UsageError if none can."""
    # Here, not above: it takes as long to load as all else.
    from importlib import metadata

    entries = metadata.entry_points(group=GROUP)
    found = [entry for entry in entries if entry.name == name]
    if not found:
        others = ", ".join(sorted({entry.name for entry in entries}))
        there = f"installed are {others}" if others else "no package gives any"
        raise UsageError(f"no oracle is called {name}: {there}; a function is named like pkg.mod:fn")
    if len(found) > 1:
        whose = " and ".join(sorted(f"{entry.value} of {_package(entry)}" for entry in found))
        raise UsageError(f"the oracle {name} is left out: it is {whose}; name the function instead")
    (entry,) = found
    try:
        call = entry.load()
        if not callable(call):
            raise TypeError(f"a {type(call).__name__} is no function")
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"the oracle {name} ({entry.value} of {_package(entry)}) is left out: it cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error
    return Function(call=call, name=name, apart=Apart(name))


def _package(entry: metadata.EntryPoint) -> str:
    return "an unknown package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
