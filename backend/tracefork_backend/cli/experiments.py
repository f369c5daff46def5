"""Verbs on what they began: `VERB RUN …` begins an experiment, `VERB show EXP` looks at it later."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

from tracefork_otel.errors import UsageError


class ShortRun(TyperGroup):
    """`VERB RUN …` is short for `VERB run RUN …`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words, with `run` before those that begin with none of the verbs."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


class Later(TyperCommand):
    """A verb on an experiment: what it was begun with is refused by name, not as an unknown option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words; UsageError for a flag of `run` that is none of this verb's."""
        own, begun = (
            {name for parameter in command.params for name in parameter.opts}
            for command in (self, ctx.parent.command.commands["run"])
        )
        for flag in (arg.partition("=")[0] for arg in args):
            if flag.startswith("-") and flag in begun - own:
                raise UsageError(
                    f"`{ctx.parent.info_name} {ctx.info_name}` keeps to what its experiment was begun with: "
                    f"leave {flag} out"
                )
        return super().parse_args(ctx, args)
