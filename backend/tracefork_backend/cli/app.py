"""The verbs, in the order in which a person meets them; each is loaded when it is asked for."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

import tracefork_otel

from .flags import expanded
from .flags.missing import named_values
from .interrupt import at_once, passed_on
from .terminal import guarded

if TYPE_CHECKING:
    from collections.abc import Callable

# The first paragraph of each verb's own help: loading all verbs takes longer than help may take.
VERBS = {
    "demo": "Record a booking agent against a scripted model server, then read, query, replay, fork and "
    "blame it.",
    "run": "Run a command and record every model call of its processes: run -- python agent.py",
    "ls": "List the runs, newest first.",
    "show": "Show a run's steps, or one step's exchange with both bodies.",
    "replay": "Run the agent again, served from the tape; exit 0 if bit-exact, 1 with the drift explained.",
    "verify": "Replay each; exit 0 if all are bit-exact, 1 if one drifted, 2 or 3 if one could not be "
    "replayed.",
    "fork": "Fork a run at a step: what came before is replayed, one thing is changed, and the agent goes "
    "on.",
    "diff": "Compare two runs step by step: the first difference, what followed from it, outcome and cost.",
    "blame": "Say which step of a run moves its outcome, and how sure that is. `blame RUN …` is short for "
    "`blame run RUN …`.",
    "repair": "Find the smallest change that makes a failed run succeed, confirmed on fresh forks beside "
    "controls. `repair RUN …` is short for `repair run RUN …`.",
    "sql": "Ask the store in SQL: runs, exchanges, bodies, messages, tools, spans …",
    "tape": "Write a run to a tape file, or read one into the store.",
    "send": "Send runs where OTEL_EXPORTER_OTLP_* points, with their own ids and times.",
    "export": "Bring tables of the store's views up to date, for Spark, Polars, ClickHouse, a warehouse.",
    "proxy": "Stand between an agent and its provider and record every call, until Ctrl-C.",
    "serve": "Show the store as a page and receive spans by OTLP/HTTP into it, until Ctrl-C.",
    "mcp": "Give a coding assistant the store as tools, by MCP over standard input and output.",
    "validate": "Run the suites with planted causes, simulated and by real forks; exit 1 if a gate fails.",
    "push": "Store in a bucket what processes that have ended recorded into a directory.",
    "compact": "Merge the store's segments into few, and delete the files that nothing needs any more.",
    "rm": "Show what would go of the store, runs, steps and bytes; with --yes, remove it for good.",
    "doctor": "Check every file and every digest; exit 1 if something is damaged or was lost.",
}


_ENDING_S = 15.0
_ENDING = ("demo", "replay", "verify", "fork", "blame", "repair", "validate", "proxy", "serve")
"""Verbs that end agents at Ctrl-C, seal what they recorded, or say how far they came."""
_GIVEN_ON = "run"
"""Ctrl-C is its command's."""


class _Verbs(TyperGroup):
    """Lists the verbs from the table, and loads the one that is run."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.commands = {name: TyperCommand(name=name, help=text) for name, text in VERBS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, found, rest = super().resolve_command(ctx, args)
        return name, found and loaded(str(name)), rest


def loaded(name: str) -> Any:
    """Return the verb of that name as typer runs it, from the file of that name."""
    module = import_module(f".{name}", __package__)
    verb: Callable[..., int | None] | None = getattr(module, name, None)
    one = typer.Typer(add_completion=False)
    if verb is None:
        one.add_typer(module.app, name=name)
        command = get_group(one).commands[name]
    else:
        one.command(name, context_settings=getattr(module, "CONTEXT", None))(expanded(verb))
        command = get_command(one)
    if name == _GIVEN_ON:
        return _guarded(command, nullcontext)
    return _guarded(command, partial(at_once, _ENDING_S) if name in _ENDING else at_once)


def _guarded(command: Any, ending: Callable[[], AbstractContextManager[None]]) -> Any:
    """Return the command, whose functions print text as data; help, which is styled, is none of theirs.

    A flag that lacks its value is refused by name before anything else is read. Ctrl-C meets it in `ending`.
    """
    parts = getattr(command, "commands", {})
    for part in parts.values():
        _guarded(part, ending)
    if not parts:
        invoke, parse = command.invoke, command.parse_args

        def asked(context: Any, args: list[str]) -> Any:
            named_values(context, args)
            return parse(context, args)

        command.parse_args = asked

        def plainly(context: Any) -> Any:
            with passed_on(), ending(), guarded():
                return invoke(context)

        command.invoke = plainly
    return command


app = typer.Typer(
    cls=_Verbs,
    help="Find the step that broke an LLM agent: record runs, read them, replay them bit-exact.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and leave.", is_eager=True),
) -> None:
    if version:
        typer.echo(f"tracefork-otel {tracefork_otel.__version__}")
        raise typer.Exit
