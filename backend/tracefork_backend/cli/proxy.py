"""`proxy`: record, or play back, anything that has a base URL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracefork_otel.errors import UsageError

from ..spelling import counted, run_name
from .flags.edit import EditFlags
from .flags.options import STORE, HostOption, PortOption, RedactOption, StoreOption, valued
from .flags.start import MatchFlags, TailOption, TimingOption
from .interrupt import INTERRUPTED
from .opening import recordable
from .output import FAILED, say
from .refs import split, tape_of

if TYPE_CHECKING:
    from tracefork_otel.play.intervention import Tail
    from tracefork_otel.settings import Settings, Timing

    from ..network.proxy import Proxy
    from ..network.server import Stopped


def proxy(
    *,
    upstream: Annotated[
        str, valued("--upstream", "URL", "Where requests go, such as https://api.anthropic.com")
    ],
    port: PortOption = 4319,
    host: HostOption = "127.0.0.1",
    store: StoreOption = STORE,
    name: Annotated[str, typer.Option("--name", help="The name of the runs that are recorded.")] = "proxy",
    replay: Annotated[
        str | None, valued("--replay", "RUN", "Answer from this run or tape; nothing goes upstream.")
    ] = None,
    match: MatchFlags,
    timing: TimingOption = "none",
    redact: RedactOption = None,
    fork: Annotated[
        str | None,
        valued("--fork", "RUN@STEP", "Answer from this run up to the step, change it, go on."),
    ] = None,
    edit: EditFlags,
    tail: TailOption = "live",
) -> int:
    """Stand between an agent and its provider and record every call, until Ctrl-C.

    With --fork RUN@STEP and one change, as `fork` takes them, the agent that you start is served up to there.

    Its address is a base URL for SDKs, not an HTTPS_PROXY: that is a tunnel, encrypted for the provider.
    """
    recordable(store)
    settings = _settings(upstream, store, redact, match, timing)
    if fork is None and edit.values:
        raise UsageError("what is to be changed is given, but not where: --fork RUN@STEP")
    with _playing(settings, edit, replay=replay, fork=fork, tail=tail) as (played, attributes):
        doing = f"replays {replay}" if replay else f"forks {fork}" if fork else f"records into {store}"
        served, stopped = _served(played, upstream, (host, port), name, attributes, doing)
    _tell(store, served.ledger.run_ids, served.ledger.lost)
    if fork is not None and not served.went_on:
        say(f"tracefork-otel: the agent never came to {fork}, so nothing was changed")
        return FAILED
    return INTERRUPTED if stopped.interrupted else 0


def _settings(upstream: str, store: Path, rules: Path | None, match: MatchFlags, timing: Timing) -> Settings:
    """Return the settings that the flags ask for; UsageError for a value that is none."""
    from urllib.parse import urlsplit

    from tracefork_otel.redaction.redact import with_rules
    from tracefork_otel.settings import Settings

    parts = urlsplit(upstream)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--upstream {upstream}: write a URL such as https://api.anthropic.com")
    return replace(
        with_rules(Settings.from_env(), rules),
        mode="record",
        store=store,
        match=match.match,
        ignore=match.ignored(),
        timing=timing,
    )


@contextlib.contextmanager
def _playing(
    settings: Settings, edit: EditFlags, *, replay: str | None, fork: str | None, tail: Tail
) -> Iterator[tuple[Settings, dict[str, object]]]:
    """Yield the settings with what is to be played, and what the run's root says of it."""
    if fork is None and replay is None:
        yield settings, {}
        return
    from ..rerun.at_proxy import playing

    change = None
    if fork is not None:
        edits = edit.asked()
        if len(edits) != 1:  # an agent that runs once cannot try several
            raise UsageError("a proxy makes one fork of one agent: give each flag once")
        if replay is not None:
            raise UsageError("--fork RUN@STEP replays up to its step: leave --replay out")
        ref, step = split(fork, flag="--fork ")
        tape = tape_of(settings.store, ref)
        change = edits[0].bind(tape, step, tail=tail)
    else:
        tape = tape_of(settings.store, str(replay))
    with playing(settings, tape, change) as played:
        yield played


def _served(
    settings: Settings,
    upstream: str,
    address: tuple[str, int],
    name: str,
    attributes: dict[str, object],
    doing: str,
) -> tuple[Proxy, Stopped]:
    """Return the proxy, after it was stopped, and by what."""
    from urllib.parse import urlsplit

    from tracefork_otel.wire.registry import root_of

    from ..network.addresses import bind, is_loopback
    from ..network.proxy import Proxy, Upstream
    from ..network.server import until_signalled

    host, port = address
    base = root_of(parts.hostname or "") if (parts := urlsplit(upstream)).path in ("", "/") else ""
    listening = Upstream(socket=bind(host, port), origin=upstream, base=base)
    if not is_loopback(host):
        say(f"warning: everyone who reaches {host} can use this proxy, and read what it plays back")
    served = Proxy([listening], settings=settings, name=name, host=host, attributes=attributes)
    with until_signalled(served) as stopped:
        say(f"tracefork-otel: http://{host}:{listening.port} -> {upstream}, {doing}; stop it with Ctrl-C")
        served.run()
    return served, stopped


def _tell(store: Path, run_ids: tuple[str, ...], lost: int) -> None:
    """Say what was recorded, which is sealed thereby."""
    from ..store import open_store

    if lost:
        say(f"tracefork-otel: {lost} records could not be written into {store}")
    if not run_ids:
        return
    with open_store(store) as opened:
        for run_id in run_ids:
            if opened.has_run(run_id):
                short_id, steps = run_name(run_id), counted(opened.run(run_id).steps, "step")
                say(f"tracefork-otel: run {short_id}, {steps}: tracefork-otel show {short_id}")
