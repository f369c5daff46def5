"""An agent that remembers: what it was told before is in a database, and in its next prompt.

    tracefork-otel run --state memory.sqlite -- python examples/remembering_agent.py "solid-state batteries"
    tracefork-otel replay last    # with the memory as it was before that run, in a copy

Without ANTHROPIC_API_KEY or ANTHROPIC_BASE_URL it talks to a scripted model on this machine.
"""

import contextlib
import os
import sqlite3
import sys

from anthropic import Anthropic

MODEL = "claude-sonnet-5"


def answer(question: str, memory: sqlite3.Connection) -> str:
    memory.execute("create table if not exists told (question text, answer text)")
    told = [
        message
        for asked, said in memory.execute("select question, answer from told")
        for message in ({"role": "user", "content": asked}, {"role": "assistant", "content": said})
    ]
    message = Anthropic().messages.create(
        model=MODEL, max_tokens=512, messages=[*told, {"role": "user", "content": question}]
    )
    said = "".join(block.text for block in message.content if block.type == "text")
    memory.execute("insert into told values (?, ?)", (question, said))
    memory.commit()
    return f"{len(told)} messages remembered\n{said}"


if __name__ == "__main__":
    with contextlib.ExitStack() as stack:
        if not os.environ.keys() & {"ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"}:
            from tracefork_backend.simulate import spawn

            os.environ["ANTHROPIC_BASE_URL"] = stack.enter_context(spawn("research", file=__file__))
        os.environ.setdefault("ANTHROPIC_API_KEY", "not needed")
        memory = stack.enter_context(contextlib.closing(sqlite3.connect("memory.sqlite")))
        print(answer(" ".join(sys.argv[1:]) or "What is known about solid-state batteries?", memory))
