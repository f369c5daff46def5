"""Groups of flags: each is declared once, as a dataclass that the verbs take whole as one parameter.

A field of a group is an option: `Annotated` with what typer shows of it. `expanded` gives typer the verb with
the options of its groups in their place, so a verb reads `start.agent` where a person types `--agent`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, ClassVar, Self, get_type_hints

from ...flag import Flag
from .options import option

__all__ = ["DeclaredFlags", "Flags", "expanded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """A group of flags."""

    @classmethod
    def options(cls) -> Iterator[Parameter]:
        """Yield each option of the group as a parameter of a function."""
        hints = get_type_hints(cls, include_extras=True)
        for field in fields(cls):
            default = field.default if field.default_factory is MISSING else field.default_factory()
            yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name])

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Return the group with these values of its options."""
        return cls(**given)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredFlags(Flags, ABC):
    """A group whose flags are those that kinds of edits or oracles declare."""

    several: ClassVar[bool] = False
    """Whether a flag that says something by itself may be given several times."""
    values: Mapping[str, Any]
    """What was given, by the flags' names."""

    @classmethod
    @abstractmethod
    def declared(cls) -> Iterable[Flag]:
        """Return the flags."""

    @classmethod
    def options(cls) -> Iterator[Parameter]:
        """Yield each flag as a parameter of a function."""
        for flag in cls.declared():
            hint, default = option(flag, several=cls.several and flag.alone is None)
            yield Parameter(flag.name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Return the group with those of these values that were given."""
        return cls(values={name: value for name, value in given.items() if value not in (None, False, [])})


def expanded(verb: Callable[..., int | None]) -> Callable[..., int | None]:
    """Return the verb as typer takes it: with the options of each group in place of the group."""
    hints = get_type_hints(verb, include_extras=True)
    groups: dict[str, type[Flags]] = {}
    options: list[Parameter] = []
    for parameter in signature(verb).parameters.values():
        hint = hints[parameter.name]
        if isinstance(hint, type) and issubclass(hint, Flags):
            groups[parameter.name] = hint
            options += hint.options()
        else:
            options.append(parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hint))

    @wraps(verb)
    def called(**given: Any) -> int | None:
        grouped = {
            name: group.of(**{option.name: given.pop(option.name) for option in group.options()})
            for name, group in groups.items()
        }
        return verb(**given, **grouped)

    called.__signature__ = Signature(options)  # type: ignore[attr-defined]
    called.__annotations__ = {}
    return called
