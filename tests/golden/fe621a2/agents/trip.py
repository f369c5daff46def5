"""Books a trip with three tools: a streaming agent with spans of its own around its steps."""

from __future__ import annotations

import json
import sys
from typing import Any

import httpx2
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from wire import ask_streaming, client, keep_intervention

from tracefork_otel import tool

URL = "https://api.anthropic.com/v1/messages"
SEATS = {("JL60", "2026-11-04"): 9, ("NH176", "2026-11-03"): 2}


@tool
def search(city: str) -> object:
    """The flights to a city."""
    return [{"flight": "JL60", "price": 780}, {"flight": "NH176", "price": 905}] if city == "Osaka" else []


@tool
def check_seats(flight: str, date: str) -> object:
    """How many seats a flight has left on a day."""
    return {"flight": flight, "date": date, "seats": SEATS.get((flight, date), 0)}


@tool(name="book")
def book_flight(flight: str, date: str) -> str:
    """Books one seat, or says that it cannot."""
    return "confirmed TF-1" if SEATS.get((flight, date)) else "sold out"


TOOLS = {"search": search, "check_seats": check_seats, "book": book_flight}


def _described(name: str) -> dict[str, Any]:
    return {"name": name, "input_schema": {"type": "object"}}


def _answer(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The content blocks that a stream of events makes."""
    blocks: list[dict[str, Any]] = []
    for event in events:
        if event["type"] == "content_block_start":
            blocks.append(dict(event["content_block"], pieces=[]))
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            blocks[event["index"]]["pieces"].append(delta.get("text") or delta.get("partial_json") or "")
    for block in blocks:
        text = "".join(block.pop("pieces"))
        if block["type"] == "text":
            block["text"] = text
        else:
            block["input"] = json.loads(text or "{}")
    return blocks


def trip(city: str) -> str:
    """What the model says in the end."""
    tracer = trace.get_tracer("trip")
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": f"Book a flight to {city} on 2026-11-03; mail ada@example.com."}
    ]
    with client(httpx2) as clients:
        while True:
            body = {
                "model": "claude-haiku-4-5",
                "max_tokens": 256,
                "stream": True,
                "system": "You are a travel agent.",
                "metadata": {"user_id": "user-17"},
                "tools": [_described(name) for name in TOOLS],
                "messages": messages,
            }
            with tracer.start_as_current_span("turn", attributes={"turn": len(messages) // 2}) as span:
                blocks = _answer(ask_streaming(clients, URL, body))
                span.add_event("answered", {"blocks": len(blocks)})
            calls = [block for block in blocks if block["type"] == "tool_use"]
            if not calls:
                return "".join(block["text"] for block in blocks)
            results = [
                {"type": "tool_result", "tool_use_id": call["id"], "content": json.dumps(_called(call))}
                for call in calls
            ]
            messages += [{"role": "assistant", "content": blocks}, {"role": "user", "content": results}]


def _called(call: dict[str, Any]) -> object:
    with trace.get_tracer("trip").start_as_current_span("tool"):
        return TOOLS[call["name"]](**call["input"])


if __name__ == "__main__":
    keep_intervention()
    trace.set_tracer_provider(TracerProvider())
    with trace.get_tracer("trip").start_as_current_span("plan the trip", attributes={"traveller": "Ada"}):
        print(trip(sys.argv[1]))
