"""Asks one provider in its own form, then a stream of it: `forms.py anthropic|chat|responses|gemini|odd`."""

from __future__ import annotations

import json
import sys
from typing import Any

import httpx
from wire import ask, ask_streaming, client, keep_intervention

QUESTION = "How warm is it in Oslo?"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
RESULT = json.dumps({"celsius": 7})
GEMINI = "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash"


def anthropic(clients: Any) -> str:
    """Messages, with one tool call."""
    url = "https://api.anthropic.com/v1/messages"
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    body = {
        "model": "claude-haiku-4-5",
        "max_tokens": 64,
        "messages": messages,
        "tools": [{"name": "weather", "input_schema": SCHEMA}],
    }
    content = ask(clients, url, body, {"x-api-key": "sk-ant-golden-secret", "x-tenant": "acme"})["content"]
    call = next(block for block in content if block["type"] == "tool_use")
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": RESULT}
    messages += [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
    said = ask(clients, url, body)["content"][0]["text"]
    ask_streaming(clients, url, {**body, "messages": [{"role": "user", "content": "Hi"}], "stream": True})
    return said


def chat(clients: Any) -> str:
    """Chat Completions, with one tool call."""
    url = "https://api.openai.com/v1/chat/completions"
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    tools = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
    body = {"model": "gpt-5-mini", "messages": messages, "tools": tools}
    message = ask(clients, url, body)["choices"][0]["message"]
    call = message["tool_calls"][0]
    messages += [message, {"role": "tool", "tool_call_id": call["id"], "content": RESULT}]
    said = ask(clients, url, body)["choices"][0]["message"]["content"]
    ask_streaming(
        clients,
        url,
        {"model": "gpt-5-mini", "stream": True, "messages": [{"role": "user", "content": "Hi"}]},
    )
    return said


def responses(clients: Any) -> str:
    """Responses, with one tool call."""
    url = "https://api.openai.com/v1/responses"
    given: list[Any] = [{"role": "user", "content": QUESTION}]
    tools = [{"type": "function", "name": "weather", "parameters": SCHEMA}]
    body = {"model": "gpt-5-mini", "instructions": "Be brief.", "input": given, "tools": tools}
    output = ask(clients, url, body)["output"]
    call = next(item for item in output if item["type"] == "function_call")
    given += [*output, {"type": "function_call_output", "call_id": call["call_id"], "output": RESULT}]
    said = ask(clients, url, body)["output"][-1]["content"][0]["text"]
    ask_streaming(clients, url, {"model": "gpt-5-mini", "stream": True, "input": "Hi"})
    return said


def gemini(clients: Any) -> str:
    """Gemini's generateContent, with one tool call."""
    contents: list[Any] = [{"role": "user", "parts": [{"text": QUESTION}]}]
    tools = [{"functionDeclarations": [{"name": "weather", "parameters": SCHEMA}]}]
    body = {"contents": contents, "tools": tools}
    turn = ask(clients, f"{GEMINI}:generateContent?key=golden-secret", body)["candidates"][0]["content"]
    result = {"functionResponse": {"name": "weather", "response": {"celsius": 7}}}
    contents += [turn, {"role": "user", "parts": [result]}]
    answer = ask(clients, f"{GEMINI}:generateContent", body)
    hello = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
    ask_streaming(clients, f"{GEMINI}:streamGenerateContent?alt=sse", hello)
    return answer["candidates"][0]["content"]["parts"][0]["text"]


def odd(clients: Any) -> str:
    """An unknown host, awkward bodies and endings, and a provider that asks to try again."""
    host = "https://models.unknown.example/raw"
    busy = [{"role": "user", "content": "Are you busy?"}]
    ask(
        clients,
        "https://api.anthropic.com/v1/messages",
        {"model": "claude-haiku-4-5", "max_tokens": 64, "messages": busy},
    )
    clients.post(f"{host}/echo", json={"model": "local-1", "prompt": QUESTION})
    clients.get(f"{host}/encoded/gzip")
    clients.post(f"{host}/echo", content=bytes(range(256)))
    clients.get(f"{host}/bytes/300?pieces=3")
    clients.get(f"{host}/204")
    try:
        clients.get(f"{host}/cut?after=3")
    except httpx.RemoteProtocolError as error:
        return type(error).__name__
    return "whole"


if __name__ == "__main__":
    keep_intervention()
    with client(httpx) as asking:
        print(
            {"anthropic": anthropic, "chat": chat, "responses": responses, "gemini": gemini, "odd": odd}[
                sys.argv[1]
            ](asking)
        )
