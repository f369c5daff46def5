"""A shop that is made up, and scripted models that serve and play its customers: no key, no network.

Each customer's run can go wrong at one place and nowhere else: asked anew there, the model errs once in five
times, and nothing that follows mends it. So the root cause of a run that failed is known by construction.
`python benchmarks/tau_made_up.py FOLDER` writes such runs and their labels as AgentRx has them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau_tools import Shop
from tracefork_backend.simulate import Call, Reply, ToolUse

POLICY = (
    "You serve the customers of a small retail shop. Find out who writes before you tell or change anything."
)
ERRS = 0.2
"""How often the model errs where it can."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What is said or called at one turn, and what in its place where it goes wrong."""

    right: str | ToolUse
    wrong: str | ToolUse | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A customer, and how the scripted models talk."""

    wish: str
    customer: tuple[Turn, ...]
    assistant: tuple[Turn, ...]
    actions: tuple[ToolUse, ...]
    outputs: tuple[str, ...] = ()
    why: str


def _asked(email: str, order: str | None = None) -> tuple[Turn, ...]:
    calls = [ToolUse("find_customer", {"email": email}), ToolUse("list_orders", {"email": email})]
    if order is not None:
        calls.append(ToolUse("get_order", {"order": order}))
    return tuple(map(Turn, calls))


def _returned(order: str, item: str, to: str) -> ToolUse:
    return ToolUse("return_item", {"order": order, "item": item, "to": to})


_THANKS = Turn("Thank you, that is all. ###STOP###")
_DONE = Turn("That is done.")
_TO = "{to}"
"""Stands for where the customer wants the money to go."""

CASES: Mapping[str, Case] = {
    "ada@example.com": Case(
        wish="You are ada@example.com. Return the blue jacket of order A-1; the money goes to your card.",
        customer=(
            Turn("I am ada@example.com. Please return the blue jacket of A-1, to my card."),
            _THANKS,
        ),
        assistant=(
            *_asked("ada@example.com", "A-1"),
            Turn(_returned("A-1", "11", "card"), _returned("A-1", "12", "card")),
            _DONE,
        ),
        actions=(_returned("A-1", "11", "card"),),
        why="the red jacket was returned, not the blue one",
    ),
    "bo@example.com": Case(
        wish="You are bo@example.com. Return the lamp of order B-7; the money must go to your card.",
        customer=(
            Turn("Hello, bo@example.com here, I want to return the lamp of B-7."),
            Turn("To my card, please.", "To a gift card, please."),
            _THANKS,
        ),
        assistant=(
            *_asked("bo@example.com", "B-7"),
            Turn("Gladly. Where shall the money go: to your card, or to a gift card?"),
            Turn(_returned("B-7", "21", _TO)),
            _DONE,
        ),
        actions=(_returned("B-7", "21", "card"),),
        why="the customer asked for a gift card, which is not what it wanted",
    ),
    "cy@example.com": Case(
        wish="You are cy@example.com. Ask how many orders you have, then cancel C-4.",
        customer=(
            Turn("How many orders do I have? My address is cy@example.com."),
            Turn("Then cancel C-4, please."),
            _THANKS,
        ),
        assistant=(
            *_asked("cy@example.com"),
            Turn("You have 4 orders with us.", "You have 3 orders with us."),
            *map(Turn, [ToolUse("get_order", {"order": "C-4"}), ToolUse("cancel_order", {"order": "C-4"})]),
            _DONE,
        ),
        actions=(ToolUse("cancel_order", {"order": "C-4"}),),
        outputs=("4 orders",),
        why="four orders were counted as three",
    ),
}

_ORDERS = {
    "A-1": {
        "of": "ada@example.com",
        "status": "delivered",
        "items": {"11": "blue jacket", "12": "red jacket"},
    },
    "B-7": {"of": "bo@example.com", "status": "delivered", "items": {"21": "lamp"}},
    **{
        f"C-{number}": {"of": "cy@example.com", "status": "pending", "items": {f"3{number}": "book"}}
        for number in range(1, 5)
    },
}
_TOOLS = {
    "find_customer": ("email",),
    "list_orders": ("email",),
    "get_order": ("order",),
    "return_item": ("order", "item", "to"),
    "cancel_order": ("order",),
}


def shop() -> Shop:
    """Return the shop with its orders as they are at first."""
    orders: dict[str, dict[str, Any]] = json.loads(json.dumps(_ORDERS))

    def use(name: str, **arguments: str) -> object:
        if name not in _TOOLS:
            raise ValueError(f"there is no tool {name}")
        if "email" in arguments:
            own = [number for number, one in orders.items() if one["of"] == arguments["email"]]
            return own if name == "list_orders" else {"known": bool(own)}
        order = orders[arguments["order"]]
        if name == "return_item":
            order.setdefault("returned", {})[arguments["item"]] = arguments["to"]
        if name == "cancel_order":
            order["status"] = "cancelled"
        return order

    def declared(name: str, fields: tuple[str, ...]) -> dict[str, Any]:
        properties = {field: {"type": "string"} for field in fields}
        parameters = {"type": "object", "properties": properties, "required": list(fields)}
        return {"type": "function", "function": {"name": name, "parameters": parameters}}

    return Shop(
        schemas=[declared(name, fields) for name, fields in _TOOLS.items()],
        use=use,
        state=lambda: json.dumps(orders, sort_keys=True),
    )


def answer(call: Call) -> Reply:
    """Answer as the assistant, the customer, or the judge, whoever is asked."""
    if call.provider == "anthropic":
        return Reply(text=_judged(call.prompt))
    heard = call.system + "".join(text for _, text in call.messages)
    case = next(case for email, case in CASES.items() if email in heard)
    turns = case.assistant if call.system == POLICY else case.customer
    turn = turns[sum(message["role"] == "assistant" for message in call.body["messages"])]
    said = turn.right if turn.wrong is None or call.rng.random() >= ERRS else turn.wrong
    if isinstance(said, str):
        return Reply(text=said)
    to = "gift card" if "To a gift card" in heard else "card"
    return Reply(
        tools=(ToolUse(said.name, {**said.input, **({"to": to} if said.input.get("to") == _TO else {})}),)
    )


def _judged(asked: str) -> str:
    """Name the last tool call: a judge that is sometimes right."""
    shown = json.loads(asked[asked.index("[") : asked.rindex("]") + 1])
    return str(max(one["message"] for one in shown if one["calls"]))


def failed(number: int, case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the run of a case that went wrong, and its label, as AgentRx has them."""
    here = shop()
    traj: list[dict[str, Any]] = [{"role": "system", "content": POLICY}]
    customer, cause = iter(case.customer), 0

    def said(turn: Turn) -> str | ToolUse:
        nonlocal cause
        cause = cause if turn.wrong is None else len(traj) + 1
        return turn.wrong or turn.right

    traj.append({"role": "user", "content": said(next(customer))})
    for turn in case.assistant:
        one = said(turn)
        if isinstance(one, str):
            traj.append({"role": "assistant", "content": one})
            traj.append({"role": "user", "content": said(next(customer))})
            continue
        to = {"to": "gift card"} if one.input.get("to") == _TO else {}
        arguments = json.dumps({**one.input, **to})
        called = {"name": one.name, "arguments": arguments}
        call = {"id": f"call_{len(traj)}", "type": "function", "function": called}
        traj.append({"role": "assistant", "content": None, "tool_calls": [call]})
        result = here.call(one.name, arguments)
        traj.append({"role": "tool", "tool_call_id": call["id"], "name": one.name, "content": result})
    task = {
        "instruction": case.wish,
        "actions": [{"name": one.name, "kwargs": dict(one.input)} for one in case.actions],
        "outputs": list(case.outputs),
    }
    who = "Assistant" if traj[cause - 1]["role"] == "assistant" else "User"
    failure = {"failure_id": 1, "step_number": cause, "step_reason": case.why, "failed_agent": who}
    return (
        {"task_id": number, "reward": 0.0, "info": {"task": task}, "traj": traj, "trial": 0},
        {"trajectory_id": number, "failures": [failure], "root_cause": {"failure_id": 1}},
    )


def main() -> None:
    folder = Path(sys.argv[1])
    runs, labels = zip(*(failed(number, case) for number, case in enumerate(CASES.values())), strict=True)
    for name, rows in (("tau_failed.json", runs), ("tau_ground_truth.json", labels)):
        (folder / name).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
