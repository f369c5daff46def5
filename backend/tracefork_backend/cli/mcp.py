"""`mcp`: the store as tools of a coding assistant, over standard input and output."""

from __future__ import annotations

from tracefork_otel.errors import UsageError

from .flags.options import STORE, StoreOption

INSTALL = 'pip install "tracefork-otel[mcp]"'


def mcp(store: StoreOption = STORE) -> int:
    """Give a coding assistant the store as tools, by MCP over standard input and output."""
    try:
        from ..mcp.server import Assistant
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types", "pydantic"):
            raise
        raise UsageError(f"this needs the extra of that name: {INSTALL}") from None
    from ..mcp.looking import Looking

    looking = Looking(store)
    try:
        Assistant(looking.tools()).run("stdio")
    finally:
        looking.close()
    return 0
