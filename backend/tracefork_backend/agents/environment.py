"""The environment that an agent is started with: recorded, and given back on a replay."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import cast

import tracefork_otel
from tracefork_otel.errors import UsageError
from tracefork_otel.redaction import redact
from tracefork_otel.settings import Mode, Settings
from tracefork_otel.tape.start import HowStarted

BOOT = Path(tracefork_otel.__file__).parent / "boot"
"""The folder whose sitecustomize starts the recording; first on PYTHONPATH."""

DUMMY = "tracefork-replay"
"""Value of a withheld variable on a replay, so that an SDK that insists on a key can be constructed."""

_RECORDED = ("redact_headers", "redact_params", "redact_rules", "draws_include")
"""Settings of a recording that its replays need too: they have to redact the same to match."""
_VARIABLES = {name: f"TRACEFORK_{name.upper()}" for name in _RECORDED}

# What belongs to the machine and the terminal of the replay, not to the recording.
_LOCAL = re.compile(
    r"PATH|HOME|PWD|OLDPWD|SHLVL|_|SHELL|USER|LOGNAME|HOSTNAME|TMPDIR|TMP|TEMP|LINES|COLUMNS|LS_COLORS|COLORTERM"
    r"|SSL_CERT_.*|.*CA_BUNDLE|.*_CERTS?|(?:https?|all|no|ftp)_proxy|(?:HTTPS?|ALL|NO|FTP)_PROXY"
    r"|DISPLAY|VIRTUAL_ENV(?:_.*)?|PYTHONHOME|PYTHONPATH|TRACEPARENT|TRACESTATE|NO_COLOR|FORCE_COLOR"
    r"|(?:TERM|SSH|XDG|WAYLAND|DBUS|CONDA|LD|DYLD|PYTEST|COV|TRACEFORK|OTEL_EXPORTER)(?:_.*)?"
)


def traced(
    base: Mapping[str, str], settings: Settings, *, launch: tuple[str, str] | None = None
) -> dict[str, str]:
    """Return the environment in which every Python process records, or is played to, by these settings.

    `launch` is the trace and the span below which it records.
    """
    told = {f"TRACEFORK_{field.name.upper()}": getattr(settings, field.name) for field in fields(settings)}
    if settings.mode == "off":
        del told["TRACEFORK_STORE"]  # where nothing is recorded, not even who could not record
    # A replay or fork inherits nothing of who asks for it; a recording's settings are the user's already.
    kept = settings.mode == "record"
    env = {
        name: value
        for name, value in base.items()
        if name not in told and (kept or not name.startswith("TRACEFORK_"))
    }
    for name in ("TRACEPARENT", "TRACESTATE"):
        env.pop(name, None)
    env["PYTHONPATH"] = os.pathsep.join([str(BOOT), *_python_path(env)])
    env |= {name: _spelled(value) for name, value in told.items() if value not in (None, "", ())}
    if launch is not None:
        env["TRACEPARENT"] = f"00-{launch[0]}-{launch[1]}-01"
    return env


def _spelled(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, cast("tuple[object, ...]", value)))
    if isinstance(value, Path):
        return str(value.absolute())
    return str(int(value) if isinstance(value, bool) else value)


def given_back(start: HowStarted, base: Mapping[str, str]) -> dict[str, str]:
    """Return this machine's environment with the recorded values, and a dummy for each unset secret."""
    env = dict(base)
    env.update({name: value for name, value in start.environment.items() if not _LOCAL.fullmatch(name)})
    entries = [entry for entry in _python_path(start.environment) if Path(entry).exists()]
    entries += [entry for entry in _python_path(base) if entry not in entries]
    if entries:
        env["PYTHONPATH"] = os.pathsep.join(entries)
    for name in start.withheld:
        if not _LOCAL.fullmatch(name):
            env.setdefault(name, DUMMY)
    return env


def unstartable(run_id: str, mode: Mode) -> UsageError:
    """Return the error for a run that does not say how its agent was started, with all that helps."""
    run = run_id[:8]
    done, flag = ("replayed", f"--replay {run}") if mode == "replay" else ("forked", f"--fork {run}@STEP")
    return UsageError(
        f"run {run} does not say how its agent was started; name its function: --agent pkg.mod:fn, "
        "or record it with `tracefork-otel run -- …`; one that you start yourself is "
        f"{done} by `tracefork-otel proxy --upstream URL {flag}`"
    )


def _python_path(environ: Mapping[str, str]) -> list[str]:
    """Return the entries of PYTHONPATH but a boot folder of ours, of whichever installation."""
    boots = (BOOT.parts[-2:], ("tracefork_otel", "_boot"))
    entries = environ.get("PYTHONPATH", "").split(os.pathsep)
    return [entry for entry in entries if entry and Path(entry).parts[-2:] not in boots]


def recordable(
    environ: Mapping[str, str], redactor: redact.Redactor
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the variables that a replay gives back, and the names of those that look secret."""
    kept, withheld = redactor.environment(environ)
    wanted = ("PYTHONPATH", *_VARIABLES.values())
    return (
        {name: value for name, value in kept.items() if name in wanted or not _LOCAL.fullmatch(name)},
        tuple(name for name in withheld if not _LOCAL.fullmatch(name)),
    )


def as_recorded(settings: Settings, start: HowStarted) -> Settings:
    """Return the settings with those of the recording that a replay needs too."""
    kept = Settings.from_env({name: start.environment.get(name, "") for name in _VARIABLES.values()})
    return replace(settings, **{name: getattr(kept, name) for name in _RECORDED})


def working_directory(start: HowStarted, *, portable: bool) -> Path:
    """Return where to start the agent: as recorded, or here if that folder is not on this machine.

    A tape file is `portable`: it is played against the checkout in which it is called, if the files that its
    command names are there too.
    """
    here = Path.cwd()
    recorded = Path(start.cwd) if start.cwd else here
    if not recorded.is_dir():
        return here
    if portable and start.command:
        named = [
            word for word in start.command if (recorded / word).is_file() and not Path(word).is_absolute()
        ]
        if named and all((here / word).is_file() for word in named):
            return here
    return recorded


def executable(argv: Sequence[str]) -> tuple[str, ...]:
    """Return the command, with this machine's interpreter where the recorded one is not here."""
    first = argv[0]
    if not os.path.isabs(first) or os.path.exists(first):
        return tuple(argv)
    name = os.path.basename(first)
    found = shutil.which(name) or (sys.executable if name.startswith("python") else first)
    return (found, *argv[1:])
