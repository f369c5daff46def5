"""The environment that an agent is started with: recorded, and given back on a replay."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import tracefork_otel
from tracefork_otel.errors import UsageError
from tracefork_otel.redaction import redact
from tracefork_otel.redaction.hidden import DUMMY
from tracefork_otel.seam.reaching import in_words
from tracefork_otel.settings import Mode, Settings
from tracefork_otel.tape.start import HowStarted

from ..spelling import run_name

BOOT = Path(tracefork_otel.__file__).parent / "boot"
"""The folder whose sitecustomize starts the recording; first on PYTHONPATH."""

_RECORDED = (
    *("redact_headers", "redact_params", "redact_bodies", "redact_rules"),
    *("draws_include", "skip_hosts"),
)
"""Settings of a recording that its replays need too: they have to redact the same to match."""
_VARIABLES = {name: f"TRACEFORK_{name.upper()}" for name in _RECORDED}

# What belongs to the machine and the terminal of the replay, not to the recording; and what says which
# programs, modules and libraries are loaded, and by which host requests go.
_LOCAL = re.compile(
    r"PATH|HOME|PWD|OLDPWD|SHLVL|_|SHELL|USER|LOGNAME|HOSTNAME|TMPDIR|TMP|TEMP|LINES|COLUMNS|LS_COLORS|COLORTERM"
    r"|SSL_CERT_.*|.*CA_BUNDLE|.*_CERTS?|(?i:.*_proxy|python.*|ld_.*|dyld_.*|tracefork_.*)"
    r"|BASH_ENV|BASH_FUNC_.*|PROMPT_COMMAND|NODE_(?:OPTIONS|PATH)|PERL5?(?:OPT|LIB|DB)|RUBY(?:OPT|LIB)|GCONV_PATH"
    r"|_?(?:JAVA|JDK_JAVA)_(?:TOOL_)?OPTIONS|GIT_(?:SSH|CONFIG|EXEC|ASKPASS|EXTERNAL|PROXY)(?:_.*)?"
    r"|(?:GIT_)?(?:SEQUENCE_)?EDITOR|(?:GIT_)?PAGER|VISUAL|BROWSER|LESSOPEN"
    r"|DISPLAY|VIRTUAL_ENV(?:_.*)?|TRACEPARENT|TRACESTATE|NO_COLOR|FORCE_COLOR"
    r"|(?:TERM|SSH|XDG|WAYLAND|DBUS|CONDA|LD|DYLD|PYTEST|COV|OTEL_EXPORTER)(?:_.*)?"
)
_SEED = "PYTHONHASHSEED"
"""The one of Python's own that a recording gives back: a number, which keeps sets in the recorded order."""


def traced(
    base: Mapping[str, str], settings: Settings, *, launch: tuple[str, str] | None = None
) -> dict[str, str]:
    """Return the environment in which every Python process records, or is played to, by these settings.

    `launch` is the trace and the span below which it records.
    """
    told = settings.to_env()
    names = {f"TRACEFORK_{field.name.upper()}" for field in fields(settings)}
    if settings.mode == "off":
        del told["TRACEFORK_STORE"]  # where nothing is recorded, not even who could not record
    # A replay or fork inherits nothing of who asks for it; a recording's settings are the user's already.
    kept = settings.mode == "record"
    env = {
        name: value
        for name, value in base.items()
        if name not in names and (kept or not name.startswith("TRACEFORK_"))
    }
    for name in ("TRACEPARENT", "TRACESTATE"):
        env.pop(name, None)
    env["PYTHONPATH"] = os.pathsep.join([str(BOOT), *_python_path(env)])
    env |= told
    if launch is not None:
        env["TRACEPARENT"] = f"00-{launch[0]}-{launch[1]}-01"
    return env


def reaching(argv: Sequence[str]) -> list[str]:
    """Return the command with the boot folder in each `PYTHONPATH` that it surely gives to what it starts."""
    return in_words(argv, str(BOOT))


def inside_another(environ: Mapping[str, str]) -> bool:
    """Return whether a recording, replay or fork of ours started this process, which so is part of it."""
    ours = any(map(is_boot, environ.get("PYTHONPATH", "").split(os.pathsep)))
    return ours and environ.get("TRACEFORK_MODE", "off") != "off" and "TRACEPARENT" in environ


def given_back(start: HowStarted, base: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return this machine's environment with the recorded values, and a dummy for each unset secret.

    Modules of an agent that was a script in a folder below the given one are found there.
    """
    env = dict(base)
    env.update({name: start.environment[name] for name in given_names(start)})
    if start.script is not None:
        env["PYTHONPATH"] = os.pathsep.join([str(folder / start.script), *_python_path(base)])
    for name in start.withheld:
        if not _LOCAL.fullmatch(name):
            env.setdefault(name, DUMMY)
    return env


def given_names(start: HowStarted) -> tuple[str, ...]:
    """Return the names of the recorded variables that a replay gets."""
    seeded = start.environment.get(_SEED, "").isdecimal()
    return tuple(
        name for name in start.environment if (name == _SEED and seeded) or not _LOCAL.fullmatch(name)
    )


def path_left_out(start: HowStarted, base: Mapping[str, str]) -> str | None:
    """Return what the recording had on PYTHONPATH and this shell has not, which alone says what is there."""
    here = _python_path(base)
    left = [entry for entry in _python_path(start.environment) if entry not in here]
    return os.pathsep.join(left) or None


def is_of_notebook(entrypoint: str | None, command: Sequence[str] | None) -> bool:
    """Return whether an agent was called in a notebook, whose kernel waits for cells when it is started."""
    if entrypoint is not None:
        return entrypoint.startswith("__main__:")
    return any(os.path.basename(word).startswith("ipykernel") for word in command or ())


def made_in_notebook(run_id: str) -> UsageError:
    """Return the error for a run of a notebook's cell, with what can be done."""
    return UsageError(
        f"run {run_name(run_id)} was made in a notebook, and nobody else can start its cells. There: "
        "tracefork_backend.replay(run, agent=function), and fork and blame likewise. Or move the agent into "
        "a module, and name it: --agent pkg.mod:fn"
    )


def unstartable(run_id: str, mode: Mode) -> UsageError:
    """Return the error for a run that does not say how its agent was started, with all that helps."""
    run = run_name(run_id)
    done, flag = ("replayed", f"--replay {run}") if mode == "replay" else ("forked", f"--fork {run}@STEP")
    return UsageError(
        f"run {run} does not say how its agent was started; name its function: --agent pkg.mod:fn, "
        "or record it with `tracefork-otel run -- …`; one that you start yourself is "
        f"{done} by `tracefork-otel proxy --upstream URL {flag}`"
    )


def _python_path(environ: Mapping[str, str]) -> list[str]:
    """Return the entries of PYTHONPATH but a boot folder of ours, of whichever installation."""
    entries = environ.get("PYTHONPATH", "").split(os.pathsep)
    return [entry for entry in entries if entry and not is_boot(entry)]


def is_boot(entry: str) -> bool:
    """Return whether an entry of PYTHONPATH is a boot folder of ours, of whichever installation."""
    return Path(entry).parts[-2:] in (BOOT.parts[-2:], ("tracefork_otel", "_boot"))


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
    kept = Settings.from_env(recorded_settings(start))
    told = {name: getattr(kept, name) for name in _RECORDED}
    told["skip_hosts"] = tuple(dict.fromkeys((*kept.skip_hosts, *settings.skip_hosts)))
    return replace(settings, **told)


def recorded_settings(start: HowStarted) -> dict[str, str]:
    """Return the variables of the recording that say what it redacted and drew."""
    return {name: start.environment[name] for name in _VARIABLES.values() if name in start.environment}


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
