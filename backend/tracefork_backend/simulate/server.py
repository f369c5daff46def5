"""The model server: routes each request to a behaviour or a raw route, and remembers what came in."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import json
import random
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from ..network.addresses import LOOPBACK, bind
from ..network.asgi import ClientLeft, Receive, Room, Scope, Send, path_of
from ..network.server import Server
from . import answers, raw
from .apis import Api, api_at, read
from .model import Behaviour, Call, Ids, Reply
from .wire import Answer, write

_COUNT_TOKENS = "/v1/messages/count_tokens"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request as it came in."""

    method: str
    path: str
    """With the query."""
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first value of the header, or None."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    def json(self) -> Any:
        """Return the body, parsed."""
        return json.loads(self.body)


def _headers(scope: Scope) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])


def echo(call: Call) -> Reply:
    """Repeat the last message."""
    return Reply(text=call.last or "(nothing)")


class ModelServer(Server):
    """A model server in this process; a context manager, within which it answers on a thread of its own."""

    def __init__(
        self,
        behaviour: Behaviour = echo,
        *,
        seed: int | None = None,
        port: int = 0,
        listener: socket.socket | None = None,
        grace_s: float = 0.0,
    ) -> None:
        """Bind the port (a free one by default); nothing is answered before `start`."""
        listener = listener or bind(port=port)
        super().__init__(self._app, [listener], grace_s=grace_s, date_header=True)
        self.behaviour = behaviour
        self.requests: list[Recorded] = []
        self.errors: list[Exception] = []
        """What the behaviour raised; the client was told by a status 500 that asks not to be retried."""
        self._seed = seed
        self._seen: Counter[bytes] = Counter()
        self._calls = 0
        self.port: int = listener.getsockname()[1]

    @property
    def url(self) -> str:
        """The base URL as the Anthropic and the Google SDK want it."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def openai_url(self) -> str:
        """The base URL as the OpenAI SDK wants it."""
        return f"{self.url}/v1"

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with Room().body(scope, receive) as body:
                request = Recorded(scope["method"], path_of(scope), _headers(scope), body)
        except ClientLeft:
            return
        self.requests.append(request)
        # An answer that the server's end cuts off is no error of the app, which is what uvicorn would report.
        with contextlib.suppress(asyncio.CancelledError):
            query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
            answer = await self._answer(request, scope["path"], query)
            await write(answer, send, lambda: self.hang_up(scope))

    async def _answer(self, request: Recorded, path: str, query: Mapping[str, str]) -> Answer:
        if path.startswith("/raw/"):
            found = raw.answer(
                path,
                query,
                content_type=request.header("content-type"),
                body=request.body,
                seed=self._seed or 0,
            )
            return found or Answer(status=404)
        rng = self._random(request)
        ids = Ids(rng, seeded=self._seed is not None)
        if path == _COUNT_TOKENS:
            return answers.token_count(request.body, ids)
        found = api_at(path)
        if found is None:
            return answers.not_found(path, ids)
        return await self._model_answer(*found, request, rng, ids)

    async def _model_answer(
        self, api: Api, told: Mapping[str, Any], request: Recorded, rng: random.Random, ids: Ids
    ) -> Answer:
        if request.method != "POST":
            return answers.failure(api, Reply(status=405, text="Method Not Allowed"), ids)
        try:
            body = request.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return answers.failure(api, Reply(status=400, text="The request body is not valid JSON"), ids)
        body = {**body, **told}
        problem = api.check(body)
        if problem is not None:
            return answers.failure(api, Reply(status=400, text=problem), ids)
        try:
            reply = await self._reply(api, body, request, rng)
        except Exception as error:
            self.errors.append(error)
            why = f"the behaviour raised {type(error).__name__}: {error}"
            refused = Reply(status=500, text=why, headers=(("x-should-retry", "false"),))
            return answers.failure(api, refused, ids)
        return answers.answer(api, body, reply, length=len(request.body), ids=ids)

    async def _reply(self, api: Api, body: Mapping[str, Any], request: Recorded, rng: random.Random) -> Reply:
        call = read(api, body, index=self._calls, headers=dict(request.headers), rng=rng)
        self._calls += 1
        reply = self.behaviour(call)
        return await reply if inspect.isawaitable(reply) else reply

    def _random(self, request: Recorded) -> random.Random:
        if self._seed is None:
            return random.Random()
        digest = hashlib.sha256(request.path.encode() + b"\0" + request.body).digest()
        nth, self._seen[digest] = self._seen[digest], self._seen[digest] + 1
        return random.Random(f"{self._seed}:{digest.hex()}:{nth}")
