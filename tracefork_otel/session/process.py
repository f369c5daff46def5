"""What a process says about itself: how it was started, where, from which commit, with which versions."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..recording.process import cwd
from ..redaction import redact


def start_attributes(mode: str, redactor: redact.Redactor) -> dict[str, object]:
    """Return how this process was started, as attributes of a run's root span, secrets left out."""
    kept, withheld = redactor.environment(os.environ)
    attributes: dict[str, object] = {
        "tracefork.command": json.dumps(redactor.command((sys.executable, *sys.orig_argv[1:]))),
        "tracefork.cwd": cwd(),
        "tracefork.environment": json.dumps(kept, sort_keys=True),
        "tracefork.environment.withheld": list(withheld),
        "tracefork.run.kind": mode,
    }
    commit = git_commit(Path(cwd()))
    if commit is not None:
        attributes["tracefork.git.commit"] = commit
    return attributes


def program() -> str:
    """Return the short name of what this interpreter runs: a script's or a module's name."""
    words = iter(sys.orig_argv[1:])
    for word in words:
        if word == "-m":
            return next(words, "python")
        if word == "-c":
            return "python -c"
        if word in ("-W", "-X", "--check-hash-based-pycs"):
            next(words, None)
        elif not word.startswith("-"):
            return os.path.basename(word)
        elif word.startswith("-m"):
            return word[2:]
    return "python"


def importable(name: str, module: Any, file: str | None) -> str:
    """Return the name by which others import a module, also where it was started as `__main__`."""
    if name != "__main__":
        return name
    spec = getattr(module, "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name).removesuffix(".__main__")
    return Path(file).stem if file else name


def git_commit(folder: Path) -> str | None:
    """Return the commit that is checked out in the folder or above it, read from files, or None."""
    with suppress(OSError, ValueError):
        for place in (folder, *folder.parents):
            git = place / ".git"
            if not git.exists():
                continue
            if git.is_file():
                git = (place / git.read_text().removeprefix("gitdir:").strip()).resolve()
            head = (git / "HEAD").read_text().strip()
            if not head.startswith("ref: "):
                return head or None
            common = git / "commondir"
            shared = (git / common.read_text().strip()).resolve() if common.exists() else git
            name = head[5:]
            if (shared / name).exists():
                return (shared / name).read_text().strip() or None
            for line in (shared / "packed-refs").read_text().splitlines():
                if line.endswith(f" {name}"):
                    return line.split()[0]
            return None
    return None


def service_name() -> str:
    """Return the service's name as OTel's own variables give it, else that of the program."""
    named = os.environ.get("OTEL_SERVICE_NAME")
    return named or resource_attributes().get("service.name") or program()


def resource_attributes() -> dict[str, str]:
    """Return what OTel's own variable says of this process."""
    pairs = (pair.partition("=") for pair in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","))
    return {key.strip(): unquote(value.strip()) for key, _, value in pairs if value.strip()}


_SHAPING = (
    *("tracefork_otel", "anthropic", "openai", "google.genai"),
    *("httpx", "httpx2", "langgraph", "pydantic_ai"),
)
"""Modules whose version can change what an agent sends."""


def versions() -> dict[str, object]:
    """Return an attribute with the versions of the loaded modules that shape an agent's requests."""
    found: dict[str, str] = {"python": sys.version.split()[0]}
    for name in _SHAPING:
        module: Any = sys.modules.get(name)
        version = getattr(module, "__version__", None)
        if isinstance(version, str):
            found[name] = version
    return {"tracefork.versions": json.dumps(found, sort_keys=True)}


def remote_parent() -> tuple[int, int, int] | None:
    """Return (trace id, span id, flags) of the span that TRACEPARENT names, or None."""
    parts = os.environ.get("TRACEPARENT", "").split("-")
    with suppress(ValueError, IndexError):
        trace, span, flags = int(parts[1], 16), int(parts[2], 16), int(parts[3], 16)
        if trace and span:
            return trace, span, flags
    return None
