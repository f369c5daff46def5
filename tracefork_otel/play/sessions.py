"""Programs that make up a session for each process and say it in the body of each request.

None of them can be given it back: they are no Python, and their replay is another process.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..exchange import Request
from ..wire.json_places import outermost_string

_UUID = rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
# In JSON a string that a colon follows is a key, and no quote inside a string stands without a backslash.
_KEY = rb"(?<!\\)\"%s\"[ \t\r\n]*:[ \t\r\n]*\""


class _Program(NamedTuple):
    """A program, by how its user agent begins, and where in its bodies a session stands."""

    agent: re.Pattern[str]
    session: re.Pattern[bytes]
    """What stands before it, as a group, and it, as another."""
    outermost: str | None = None
    """The key at which it stands, if that is one of the outermost object."""


_PROGRAMS = (
    # `user_…_account_…_session_UUID`, and in later versions JSON in a string.
    _Program(
        re.compile("claude-cli/"),
        re.compile(
            rb"("
            + _KEY % b"user_id"
            + rb"(?:user_[^\"\\]*_session_|\{(?:[^\"\\}]|\\\")*\\\"session_id\\\": ?\\\")"
            + rb")("
            + _UUID
            + rb")"
        ),
    ),
    # The command line, `exec`, the editor's and the SDKs' each have a name of their own.
    _Program(
        re.compile(r"codex(?:[_-](?:cli|exec|vscode|sdk|tui|app|mcp)[a-z_-]*)?/"),
        re.compile(rb"(" + _KEY % b"prompt_cache_key" + rb")(" + _UUID + rb")"),
        "prompt_cache_key",
    ),
)


def says_session(request: Request) -> bool:
    """Return whether the request is of a program that says its session in its bodies."""
    return _program(request) is not None


def without_session(request: Request, body: bytes) -> bytes:
    """Return the body with the session's id, which is another one in each process, as one word."""
    program = _program(request)
    if program is None:
        return body
    if program.outermost is None:
        return program.session.sub(rb"\1session", body)
    said = outermost_string(body, program.outermost)
    if said is None:
        return body
    session = said.encode("utf-8", "surrogatepass")
    return program.session.sub(lambda found: found[1] + b"session" if found[2] == session else found[0], body)


def _program(request: Request) -> _Program | None:
    agent = request.header("user-agent") or ""
    return next((one for one in _PROGRAMS if one.agent.match(agent)), None)
