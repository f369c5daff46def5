"""The verbs, in the order in which a person meets them."""

from __future__ import annotations

import typer

import tracefork_otel

from . import (
    blame,
    demo,
    diff,
    doctor,
    fork,
    ls,
    proxy,
    replay,
    run,
    serve,
    show,
    sql,
    tape,
    validate,
    verify,
)
from .flags import expanded

app = typer.Typer(
    help="Find the step that broke an LLM agent: record runs, read them, replay them bit-exact.",
    no_args_is_help=True,
    add_completion=False,
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


app.command("demo")(demo.demo)
app.command(
    "run",
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
    },
)(run.run)
app.command("ls")(ls.ls)
app.command("show")(show.show)
app.command("replay")(expanded(replay.replay))
app.command("verify")(expanded(verify.verify))
app.command("fork")(expanded(fork.fork))
app.command("diff")(diff.diff)
app.add_typer(blame.app, name="blame")
app.command("sql")(sql.sql)
app.add_typer(tape.app, name="tape")
app.command("proxy")(expanded(proxy.proxy))
app.command("serve")(serve.serve)
app.command("validate")(validate.validate)
app.command("doctor")(doctor.doctor)
