"""HTTP clients of the golden agents: they ask the providers' real URLs, and this machine answers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

PORT_FILE = Path("model.port")
"""Says on which port of this machine the model listens; a replay does not read it, as it asks nobody."""
KEPT = Path("interventions")
"""Where a fork's agent leaves a copy of its intervention, if the folder is there."""


def client(library: ModuleType) -> Any:
    """A client of `httpx` or `httpx2` whose connections all go to the model on this machine."""

    class ToModel(library.HTTPTransport):
        """Sends each request to the model, whichever host it names."""

        def handle_request(self, request: Any) -> Any:
            """The model's answer."""
            there = f"http://127.0.0.1:{PORT_FILE.read_text().strip()}{request.url.raw_path.decode()}"
            return super().handle_request(
                library.Request(request.method, there, headers=request.headers, stream=request.stream)
            )

    return library.Client(transport=ToModel(verify=False), timeout=30)


def ask(
    clients: Any, url: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The JSON answer; a status of 429 is retried once."""
    for _ in range(2):
        answer = clients.post(url, json=body, headers=headers)
        if answer.status_code != 429:
            break
    return answer.json()


def ask_streaming(clients: Any, url: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The JSON of each event of the answer's stream."""
    with clients.stream("POST", url, json=body) as answer:
        lines = [
            line.removeprefix("data:").strip() for line in answer.iter_lines() if line.startswith("data:")
        ]
    return [json.loads(line) for line in lines if line.startswith("{")]


def keep_intervention() -> None:
    """In a fork, the intervention's file is copied under the name of what it changes."""
    given = os.environ.get("TRACEFORK_INTERVENTION")
    if given is None or not KEPT.is_dir():
        return
    told = json.loads(Path(given).read_bytes())
    words = [told["label"], told["tail"] if told["tail"] != "live" else ""]
    words += ["trial" if told["experiment_id"] else "", "twice" if told["also"] else ""]
    name = "-".join("".join(c if c.isalnum() else " " for c in " ".join(words)).split())
    target = KEPT / f"{name[:60]}.json"
    if not target.exists():
        shutil.copy(given, target)
