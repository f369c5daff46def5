"""`proxy`: record, or play back, anything that has a base URL."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from tracefork_otel.errors import UsageError

from .fork import (
    FAILED,
    TAILS,
    FaultOption,
    ModelOption,
    NoopOption,
    ResampleOption,
    ResponseOption,
    SetOption,
    SystemOption,
    TailOption,
    TextOption,
    ToolInputOption,
    ToolOption,
    ToolResultOption,
)
from .options import STORE, IgnoreOption, MatchOption, RedactOption, StoreOption, TimingOption, one_of
from .output import say
from .replay import MATCHES, TIMINGS
from .variants import variants

if TYPE_CHECKING:
    from tracefork_otel.play.intervention import Tail
    from tracefork_otel.settings import Settings

    from ..network.proxy import Proxy
    from ..rerun.edits import Edit

UpstreamOption = Annotated[
    str,
    typer.Option("--upstream", metavar="URL", help="Where requests go, such as https://api.anthropic.com"),
]
PortOption = Annotated[int, typer.Option("--port", help="The port to listen on; 0 for a free one.")]
HostOption = Annotated[str, typer.Option("--host", help="The address to listen on: this machine alone.")]
NameOption = Annotated[str, typer.Option("--name", help="The name of the runs that are recorded.")]
ForkOption = Annotated[
    str | None,
    typer.Option("--fork", metavar="RUN@STEP", help="Answer from this run up to the step, change it, go on."),
]
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
    fork: ForkOption = None,
    text: TextOption = None,
    tool_input: ToolInputOption = None,
    tool: ToolOption = None,
    response: ResponseOption = None,
    set: SetOption = None,
    system: SystemOption = None,
    model: ModelOption = None,
    fault: FaultOption = None,
    resample: ResampleOption = False,
    noop: NoopOption = False,
    tool_result: ToolResultOption = None,
    tail: TailOption = "live",
) -> int:
    """Stand between an agent and its provider and record every call, until Ctrl-C.

    With --fork RUN@STEP and one change, as `fork` takes them, the agent that you start is served up to there.
    """
    settings = _checked(upstream, store, redact, match=match, ignore=tuple(ignore or ()), timing=timing)
    edit = None
    changes: dict[str, Any] = {
        "text": text or (),
        "tool_input": tool_input or (),
        "tool": tool,
        "response": response or (),
        "set": set or (),
        "system": system or (),
        "model": model or (),
        "fault": fault or (),
        "resample": resample,
        "noop": noop,
        "tool_result": tool_result or (),
    }
    if fork is not None:
        edit = _one_change(changes)
        if replay is not None:
            raise UsageError("--fork RUN@STEP replays up to its step: leave --replay out")
    elif any(changes.values()):
        raise UsageError("what is to be changed is given, but not where: --fork RUN@STEP")
    with _playing(settings, replay, fork, edit, tail) as (played, attributes):
        doing = f"replays {replay}" if replay else f"forks {fork}" if fork else f"records into {store}"
        served = _served(played, upstream, (host, port), name, attributes, doing)
    _told(store, served.ledger.run_ids, served.ledger.lost)
    if fork is not None and not served.went_on:
        say(f"tracefork-otel: the agent never came to {fork}, so nothing was changed")
        return FAILED
    return 0


def _checked(
    upstream: str, store: Path, rules: Path | None, *, match: str, ignore: tuple[str, ...], timing: str
) -> Settings:
    """The settings that the flags ask for; raises UsageError for a value that is none."""
    from urllib.parse import urlsplit

    from tracefork_otel.redaction.redact import with_rules
    from tracefork_otel.settings import Settings

    parts = urlsplit(upstream)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--upstream {upstream}: write a URL such as https://api.anthropic.com")
    one_of("--match", match, MATCHES)
    one_of("--timing", timing, TIMINGS)
    return replace(
        with_rules(Settings.from_env(), rules),
        mode="record",
        store=store,
        match=cast("Literal['exact', 'json']", match),
        ignore=ignore,
        timing=cast("Literal['none', 'recorded']", timing),
    )


def _served(
    settings: Settings,
    upstream: str,
    address: tuple[str, int],
    name: str,
    attributes: dict[str, object],
    doing: str,
) -> Proxy:
    """The proxy, after it was stopped."""
    from ..network.listening import bind, is_loopback, until_signalled
    from ..network.proxy import Proxy, Upstream

    host, port = address
    listening = Upstream(socket=bind(host, port), origin=upstream)
    if not is_loopback(host):
        say(f"warning: everyone who reaches {host} can use this proxy, and read what it plays back")
    served = Proxy([listening], settings=settings, name=name, host=host, attributes=attributes)
    with until_signalled(served.server):
        say(f"tracefork-otel: http://{host}:{listening.port} -> {upstream}, {doing}; stop it with Ctrl-C")
        served.run()
    return served


def _one_change(changes: dict[str, Any]) -> Edit:
    """The one change that the flags ask for; an agent that runs once cannot try several."""
    found = variants(**changes)
    if len(found) != 1:
        raise UsageError("a proxy makes one fork of one agent: give each flag once")
    return found[0]


@contextlib.contextmanager
def _playing(
    settings: Settings, replay: str | None, fork: str | None, edit: Edit | None, tail: str
) -> Iterator[tuple[Settings, dict[str, object]]]:
    """The settings with what is to be played, in files for that long, and what the run's root says of it."""
    if replay is None and fork is None:
        yield settings, {}
        return
    from tracefork_otel.tape.tape import Tape

    from ..agents import kept_settings
    from ..rerun.interventions import build
    from ..rerun.reconstruct import reconstruct
    from ..store import open_store, parse_ref

    ref, step = (replay or "", None) if fork is None else parse_ref(fork)
    if fork is not None and step is None:
        raise UsageError(f"--fork {fork}: say at which step, such as {ref}@0")
    one_of("--tail", tail, TAILS)

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
        playing = replace(settings, mode="replay", tape=path, redact_rules=kept or settings.redact_rules)
        about: dict[str, object] = {"tracefork.parent.run_id": tape.run_id}
        if step is not None:
            change = build(tape, step, edit=edit, tail=cast("Tail", tail))
            file = Path(folder) / "intervention.json"
            change.dump(file)
            playing = replace(playing, mode="fork", intervention=file)
            about |= {"tracefork.fork.step": step, "tracefork.fork.intervention": change.label}
            about["tracefork.fork.tail"] = tail
        yield playing, about


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
