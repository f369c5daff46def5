"""`serve`: the page for people, and the receiver for any SDK's or Collector's spans, in one process."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracefork_otel.errors import UsageError

from .flags.options import STORE, HostOption, RedactOption, StoreOption, valued
from .interrupt import INTERRUPTED
from .opening import recordable
from .output import say

if TYPE_CHECKING:
    from socket import socket

    from ..network.receiver import Receiver
    from ..page.server import PageServer


def serve(
    store: StoreOption = STORE,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="The page's port; 0: a free one.")
    ] = 7777,
    otlp_port: Annotated[
        int, typer.Option("--otlp-port", min=0, max=65535, help="The receiver's port; 0: a free one.")
    ] = 4318,
    host: HostOption = "127.0.0.1",
    no_page: Annotated[bool, typer.Option("--no-page", help="Only receive spans.")] = False,
    no_otlp: Annotated[bool, typer.Option("--no-otlp", help="Only the page.")] = False,
    allow_run: Annotated[
        bool, typer.Option("--allow-run", help="Let the page start agents: forks, blame.")
    ] = False,
    budget: Annotated[
        float, valued("--budget", "USD", "What all that the page starts may spend together.", min=0.0)
    ] = 0.0,
    token: Annotated[
        bool,
        typer.Option(
            "--token",
            help="Ask whoever looks for a token, which is printed: always with another --host.",
        ),
    ] = False,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    redact: RedactOption = None,
) -> int:
    """Show the store as a page and receive spans by OTLP/HTTP into it, until Ctrl-C."""
    from ..network.addresses import bind, is_loopback
    from ..network.server import until_stopped

    if no_page and no_otlp:
        raise UsageError("--no-page and --no-otlp leave nothing to serve")
    if not no_otlp:
        recordable(store)
    local = is_loopback(host)
    with ExitStack() as stack:
        # Ports first: what cannot listen says so before anything has started.
        pages = None if no_page else stack.enter_context(bind(host, port, flag="--port"))
        spans = None if no_otlp else stack.enter_context(bind(host, otlp_port, flag="--otlp-port"))
        receiver = page = None
        if spans is not None:
            receiver = _receiver(spans, host, store, redact, local=local)
        if pages is not None:
            page = _page(
                pages,
                host,
                store,
                token=token or not local,
                allow_run=allow_run,
                budget=budget,
                open_it=open_it,
            )
        stopped = until_stopped([one for one in (page, receiver) if one is not None])
        if receiver is not None:
            say(f"tracefork-otel: {receiver.spans} spans received, {receiver.exchanges} of them exchanges")
    return INTERRUPTED if stopped.interrupted else 0


def _page(
    listener: socket,
    host: str,
    store: Path,
    *,
    token: bool,
    allow_run: bool,
    budget: float,
    open_it: bool,
) -> PageServer:
    """Return the page, and say where it is."""
    from ..page.permits import Permits, new_token
    from ..page.server import PageServer

    permits = Permits(allow_run=allow_run, budget_usd=budget, entry=new_token() if token else None)
    made = PageServer(listener, store=store, permits=permits, host=host)
    url = f"http://{host}:{made.port}/" + (f"?token={permits.entry}" if permits.entry else "")
    may = f"it may start agents and spend ${budget:g}" if allow_run else "it only looks"
    say(f"tracefork-otel: the page of {store} is at {url} ({may}); stop it with Ctrl-C")
    if open_it:
        import webbrowser

        webbrowser.open(url)
    return made


def _receiver(listener: socket, host: str, store: Path, redact: Path | None, *, local: bool) -> Receiver:
    """Return the receiver, and say where it is."""
    from tracefork_otel.redaction.redact import with_rules
    from tracefork_otel.settings import Settings

    from ..network.receiver import Receiver

    made = Receiver(listener, store=store, host=host, settings=with_rules(Settings.from_env(), redact))
    if not local:
        say(f"warning: everyone who reaches {host} can write into {store}")
    say(
        f"tracefork-otel: OTLP/HTTP on http://{host}:{made.port}, into {store}; stop it with Ctrl-C\n"
        f"  OTEL_EXPORTER_OTLP_ENDPOINT=http://{host}:{made.port} OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
    )
    return made
