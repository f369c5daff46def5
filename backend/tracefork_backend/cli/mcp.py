"""`mcp`: the store as tools of a coding assistant, over standard input and output."""

from __future__ import annotations

from typing import Annotated

import typer

from tracefork_otel.errors import UsageError

from .flags.options import STORE, StoreOption, valued

INSTALL = 'pip install "tracefork-otel[mcp]"'


def mcp(
    store: StoreOption = STORE,
    *,
    allow_run: Annotated[
        bool, typer.Option("--allow-run", help="Let the assistant start agents: replay, fork, blame.")
    ] = False,
    budget: Annotated[
        float, valued("--budget", "USD", "What all that it starts may spend together.", min=0.0)
    ] = 0.0,
) -> int:
    """Give a coding assistant the store as tools, by MCP over standard input and output."""
    try:
        from ..mcp.server import Assistant
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types", "pydantic"):
            raise
        raise UsageError(f"mcp needs the MCP SDK, which is not installed: {INSTALL}") from None
    from ..mcp.acting import Acting
    from ..mcp.looking import Looking
    from ..mcp.prompts import Prompts

    looking = Looking(store)
    acting = Acting(looking, budget)
    try:
        prompts = Prompts(looking)
        Assistant(
            looking.tools(),
            acting.tools() if allow_run else (),
            (prompts.fix_run, prompts.explain_run),
        ).run("stdio")
    finally:
        acting.close()
        looking.close()
    return 0
