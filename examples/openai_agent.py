"""A support agent on OpenAI: a refund with two tools by Chat Completions, then a summary by Responses.

    python examples/openai_agent.py
    tracefork-otel run -- python examples/openai_agent.py

Without OPENAI_API_KEY or OPENAI_BASE_URL it talks to a scripted model on this machine.
"""

import contextlib
import json
import os

from openai import OpenAI

MODEL = "gpt-5-mini"
ORDERS = {"A-1042": {"item": "a rain jacket", "total": 89}}


def lookup_order(order_id: str) -> object:
    return ORDERS.get(order_id, {"error": "no such order"})


def refund(order_id: str, amount: float) -> object:
    return {"order_id": order_id, "refunded": amount}


FUNCTIONS = {"lookup_order": lookup_order, "refund": refund}


def tool(name: str, description: str, **fields: str) -> dict:
    properties = {field: {"type": kind} for field, kind in fields.items()}
    schema = {"type": "object", "properties": properties, "required": list(fields)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS = [
    tool("lookup_order", "An order's item and total in EUR", order_id="string"),
    tool("refund", "Pay an amount back", order_id="string", amount="number"),
]


def support(order_id: str) -> str:
    client = OpenAI()
    messages = [
        {"role": "system", "content": "You are a support agent. Refund what the order cost."},
        {"role": "user", "content": f"The parcel for order {order_id} never came. Please refund it."},
    ]
    while True:
        answer = client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)
        message = answer.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            break
        for call in message.tool_calls:
            result = FUNCTIONS[call.function.name](**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)})
    note = client.responses.create(
        model=MODEL, instructions="Write a line for the customer's file.", input=message.content
    )
    return f"{message.content}\n{note.output_text}"


if __name__ == "__main__":
    with contextlib.ExitStack() as stack:
        if not os.environ.keys() & {"OPENAI_API_KEY", "OPENAI_BASE_URL"}:
            from tracefork_backend.simulate import spawn

            os.environ["OPENAI_BASE_URL"] = stack.enter_context(spawn("chat_tools", file=__file__)) + "/v1"
        os.environ.setdefault("OPENAI_API_KEY", "not needed")
        print(support("A-1042"))
