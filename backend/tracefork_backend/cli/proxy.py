"""`proxy`: record, or play back, anything that has a base URL."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracefork_otel._errors import UsageError

from ._options import STORE, IgnoreOption, MatchOption, RedactOption, StoreOption, TimingOption
from ._output import say
from .replay import MATCHES, TIMINGS

if TYPE_CHECKING:
    from tracefork_otel._settings import Settings

UpstreamOption = Annotated[
    str,
    typer.Option("--upstream", metavar="URL", help="Where requests go, such as https://api.anthropic.com"),
]
PortOption = Annotated[int, typer.Option("--port", help="The port to listen on; 0 for a free one.")]
HostOption = Annotated[str, typer.Option("--host", help="The address to listen on: this machine alone.")]
NameOption = Annotated[str, typer.Option("--name", help="The name of the runs that are recorded.")]
ReplayOption = Annotated[
    str | None,
    typer.Option("--replay", metavar="RUN", help="Answer from this run or tape; nothing goes upstream."),
]


def proxy(
    upstream: UpstreamOption,
    port: PortOption = 4319,
    host: HostOption = "127.0.0.1",
    store: StoreOption = STORE,
    name: NameOption = "proxy",
    replay: ReplayOption = None,
    match: MatchOption = "exact",
    ignore: IgnoreOption = None,
    timing: TimingOption = "none",
    redact: RedactOption = None,
) -> int:
    """Stand between an agent and its provider and record every call, until Ctrl-C."""
    from urllib.parse import urlsplit

    from tracefork_otel._settings import Settings

    from ..proxy.listening import bind, is_loopback, until_signalled
    from ..proxy.server import Proxy, Upstream

    parts = urlsplit(upstream)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--upstream {upstream}: write a URL such as https://api.anthropic.com")
    for option, value, allowed in (("--match", match, MATCHES), ("--timing", timing, TIMINGS)):
        if value not in allowed:
            raise UsageError(f"{option} {value}: use {' or '.join(allowed)}")
    settings = replace(
        with_rules(Settings.from_env(), redact),
        mode="record",
        store=store,
        match=match,
        ignore=tuple(ignore or ()),
        timing=timing,
    )
    with _playing(settings, replay) as played:
        listening = Upstream(socket=bind(host, port), origin=upstream)
        if not is_loopback(host):
            say(f"warning: everyone who reaches {host} can use this proxy, and read what it plays back")
        served = Proxy([listening], settings=played, name=name, host=host)
        with until_signalled(served.server):
            doing = f"replays {replay}" if replay else f"records into {store}"
            say(f"tracefork-otel: http://{host}:{listening.port} -> {upstream}, {doing}; stop it with Ctrl-C")
            served.run()
    _told(store, served.ledger.run_ids, served.ledger.lost)
    return 0


def with_rules(settings: Settings, path: Path | None) -> Settings:
    """The settings with the rules of that file, else the environment's; UsageError if they cannot be read."""
    from tracefork_otel.redact import rules_of

    if path is not None:
        settings = replace(settings, redact=path, redact_rules="")
    rules = rules_of(settings)
    return replace(settings, redact=None, redact_rules="" if rules is None else rules.source)


@contextlib.contextmanager
def _playing(settings: Settings, ref: str | None) -> Iterator[Settings]:
    """The settings, and the tape of what is to be played in a file as long as it is."""
    if ref is None:
        yield settings
        return
    from tracefork_otel.tape import Tape

    from ..reconstruct import reconstruct
    from ..runner import kept_settings
    from ..store import open_store

    with tempfile.TemporaryDirectory(prefix="tracefork-proxy-") as folder:
        path = Path(folder) / "run.tape.jsonl"
        if Path(ref).is_file():
            tape = Tape.load(Path(ref))
        else:
            with open_store(settings.store) as opened:
                tape = reconstruct(opened, opened.run(ref))
        tape.dump(path)
        kept = kept_settings(tape.start).get("TRACEFORK_REDACT_RULES", "")
        # What was redacted in the recording has to be redacted to match.
        yield replace(settings, mode="replay", tape=path, redact_rules=kept or settings.redact_rules)


def _told(store: Path, run_ids: tuple[str, ...], lost: int) -> None:
    """What was recorded is sealed and named."""
    from ..store import open_store

    if lost:
        say(f"tracefork-otel: {lost} records could not be written into {store}")
    if not run_ids:
        return
    with open_store(store) as opened:
        for run_id in run_ids:
            if opened.has_run(run_id):
                steps = opened.run(run_id).steps
                what = f"{steps} step{'' if steps == 1 else 's'}"
                say(f"tracefork-otel: run {run_id[:8]}, {what}: tracefork-otel show {run_id[:8]}")
