"""A flag whose value was forgotten takes the next flag for it, unless somebody looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracefork_otel.errors import UsageError


def named_values(context: Any, args: Sequence[str]) -> None:
    """Refuse a flag of the command's that is followed by another one where its value should stand.

    `--flag=VALUE` gives a value that is spelled like a flag.
    """
    options = {name: one for one in context.command.params for name in (*one.opts, *one.secondary_opts)}
    left = iter(args)
    for arg in left:
        option = options.get(arg)
        if arg == "--" or (not arg.startswith("-") and not context.allow_interspersed_args):
            return
        if option is None or getattr(option, "is_flag", False) or getattr(option, "count", False):
            continue
        value = next(left, None)
        if value in options and str(value).startswith("-"):
            what = option.metavar or "VALUE"
            raise UsageError(f"{arg} needs a value: {arg} {what}; after it stands {value}")
