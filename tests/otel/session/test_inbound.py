"""A web application's requests: each that asks a model is a run of its own, made again without a port."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import Capture
from e2e.command import environment, here
from tracefork_backend.simulate import ModelServer, Reply
from tracefork_backend.store import open_store

from tracefork_otel.decorators.main import find
from tracefork_otel.session import inbound
from tracefork_otel.session.applications import AsgiApplication, WsgiApplication

LINE = (
    "from tracefork_otel import TraceforkInstrumentor\nTraceforkInstrumentor().instrument(http_spans=False)\n"
)
APP = """
import asyncio, os
from contextlib import asynccontextmanager
import httpx2
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

@asynccontextmanager
async def lifespan(app):
    app.state.ready = True
    yield

async def say(words):
    async with httpx2.AsyncClient() as client:
        said = {"model": "gpt-4o", "messages": [{"role": "user", "content": words}]}
        answer = await client.post(os.environ["MODEL_URL"] + "/chat/completions", json=said)
        return answer.json()["choices"][0]["message"]["content"]

async def chat(request):
    asked = (await request.json())["ask"]
    first = await say(asked + str(dict(request.query_params)))
    second = await asyncio.create_task(say(f"{first}, then?"))
    return JSONResponse({"said": second}, background=BackgroundTask(say, "later"))

async def stream(request):
    async def parts():
        for turn in range(3):
            yield f"data: {await say(str(turn))}\\n\\n"
    return StreamingResponse(parts(), media_type="text/event-stream")

async def upload(request):
    body = await request.body()
    return PlainTextResponse(await say(f"{len(body)} bytes, {body[:2]!r}"))

async def boom(request):
    await say("boom")
    raise ValueError("lost")

async def health(request):
    return PlainTextResponse("ok")

def make():
    routes = [Route("/health", health), Route("/stream", stream)]
    posts = [Route(f"/{one.__name__}", one, methods=["POST"]) for one in (chat, upload, boom)]
    return Starlette(routes=[*routes, *posts], lifespan=lifespan)

app = make()
"""


@pytest.fixture
def model() -> Iterator[ModelServer]:
    """A model that says how it was asked."""
    with ModelServer(lambda call: Reply(text=f"<{call.messages[-1][1]}>")) as server:
        yield server


@contextmanager
def served(
    folder: Path, model: ModelServer, *words: str, code: str = APP, app: str = "app:app"
) -> Iterator[Any]:
    """A client of the application, which uvicorn serves, started by these words."""
    (folder / "app.py").write_text(code)
    argv = [
        *words,
        sys.executable,
        "-m",
        "uvicorn",
        "--port",
        "0",
        *(["--factory"] if app == "app:make" else []),
        app,
    ]
    server = subprocess.Popen(
        argv,
        cwd=folder,
        env=environment(MODEL_URL=model.openai_url),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stderr is not None
        said = ""
        for line in server.stderr:
            said += line
            if found := re.search(r"running on (http://\S+)", line):
                break
        else:
            pytest.fail(said)
        with httpx2.Client(base_url=found[1], timeout=20) as client:
            yield client
    finally:
        server.terminate()
        server.communicate(timeout=30)


RUN = (sys.executable, "-m", "tracefork_backend.cli", "run", "--")
SPANNED = (
    LINE
    + APP
    + """
import threading
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
SPAN = trace.get_tracer("mine").start_as_current_span

def later(words):
    with SPAN("later"):
        asyncio.run(say(words))

async def handle(request):
    words = (await request.body()).decode()
    with SPAN("plan"):
        first = await say(words)
    with SPAN("act"), SPAN("call", kind=trace.SpanKind.CLIENT):
        second = await say(first)
    with SPAN("call", kind=trace.SpanKind.CLIENT):
        third = await say(second)
    await asyncio.to_thread(later, third)
    return PlainTextResponse(third)

async def start(request):
    thread = threading.Thread(target=later, args=("of nobody",))
    thread.start()
    await asyncio.to_thread(thread.join)
    return PlainTextResponse("done")

app.router.routes += [Route("/start", start), Route("/handle", handle, methods=["POST"])]
"""
)


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), RUN], ids=["the one line", "run"])
def test_spans_one_after_the_other_are_one_request(
    tmp_path: Path, model: ModelServer, words: tuple[str, ...]
) -> None:
    """Each request is one run, which replays; what is of nobody is apart, for a server is no run."""
    with served(tmp_path, model, *words, code=SPANNED) as client:
        for asked in ("one", "two"):
            client.post("/handle", content=asked)
        for _ in range(2):
            client.get("/start")
    with open_store(tmp_path / ".tracefork") as store:
        runs = sorted((run.name, run.steps, run.run_id) for run in store.runs())
    assert [run[:2] for run in runs] == [("later", 1), ("later", 1), ("plan", 4), ("plan", 4)]
    replayed = here("replay", runs[-1][2], "--trust", cwd=tmp_path)
    assert replayed.status == 0, replayed.out + replayed.err
    assert "4 of 4 exchanges" in replayed.out


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), RUN], ids=["the one line", "run"])
def test_each_request_is_a_run(tmp_path: Path, model: ModelServer, words: tuple[str, ...]) -> None:
    """Its calls are, and those of its tasks; what asks nothing is none. It replays, and forks."""
    code = APP if words else LINE + APP
    with served(tmp_path, model, *words, code=code) as client:
        assert client.get("/health").text == "ok"
        key = {"authorization": "Bearer sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"}
        assert client.post("/chat?x=1", json={"ask": "hello"}, headers=key).json()["said"]
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda n: client.post("/chat", json={"ask": n}).json()["said"], "abcd"))
        assert client.get("/stream").text.count("data:") == 3
    assert len(set(answers)) == 4
    with open_store(tmp_path / ".tracefork") as store:
        runs = [
            run for run in reversed(store.runs()) if (run.name or "").partition(" ")[0] in ("GET", "POST")
        ]
        assert [(run.name, run.steps) for run in runs] == [("POST /chat", 3)] * 5 + [("GET /stream", 3)]
        assert {run.entrypoint for run in runs} == {"asgi:app:app"}
        start = store.run(runs[0].run_id).start
        assert start.arguments["kwargs"]["query"] == "x=1"
        assert start.arguments["kwargs"]["body"] == '{"ask":"hello"}'
        assert "abcdefghij" not in str(start.arguments)
    arrived = len(model.requests)
    for run in (runs[0], runs[3], runs[5]):
        replayed = here("replay", run.run_id, cwd=tmp_path, MODEL_URL=model.openai_url)
        assert "PASS    bit-exact" in replayed.out, replayed.out + replayed.err
        assert "answer  200, recorded 200, with the same body" in replayed.out
    code = (tmp_path / "app.py").read_text()
    for change, said in (
        ('{"said": second, "more": 1}', "answer  200, recorded 200, with another body\n"),
        ('{"said": second}, status_code=500', "the request was answered with status 500, recorded 200\n"),
    ):
        (tmp_path / "app.py").write_text(code.replace('{"said": second}', change))
        replayed = here("replay", runs[0].run_id, cwd=tmp_path, MODEL_URL=model.openai_url)
        assert said in replayed.out, replayed.out + replayed.err
        assert ("PASS    bit-exact" in replayed.out) == ("another body" in said)
    (tmp_path / "app.py").write_text(code)
    assert len(model.requests) == arrived
    forked = here("fork", f"{runs[0].run_id}@0", "--text", "other", cwd=tmp_path, MODEL_URL=model.openai_url)
    assert "1 edited, 2 live" in forked.out, forked.out + forked.err
    assert '{"status": 200, "body": "{\\"said\\":\\"<other, then?>\\"}"}' in forked.out
    again = here("fork", "last@1", "--text", "third", cwd=tmp_path, MODEL_URL=model.openai_url)
    assert '{\\"said\\":\\"third\\"}' in again.out, again.out + again.err


@pytest.mark.slow
def test_what_a_request_may_be(tmp_path: Path, model: ModelServer) -> None:
    """A factory's application, a body that is no text, one that is too long, and an error."""
    binary, long = bytes(range(256)), b"x" * (inbound.BODY_LIMIT + 1)
    with served(tmp_path, model, *RUN, app="app:make") as client:
        assert client.post("/upload", content=binary).status_code == 200
        assert client.post("/upload", content=long).status_code == 200
        assert client.post("/boom").status_code == 500
    with open_store(tmp_path / ".tracefork") as store:
        runs = [run for run in reversed(store.runs()) if (run.name or "").startswith("POST")]
    assert [(run.name, run.status) for run in runs] == [
        ("POST /upload", "ok"),
        ("POST /upload", "ok"),
        ("POST /boom", "error"),
    ]
    assert {run.entrypoint for run in runs} == {"asgi:app:make()"}
    env = {"MODEL_URL": model.openai_url}
    assert "PASS" in here("replay", runs[0].run_id, cwd=tmp_path, **env).out
    here("replay", runs[1].run_id, cwd=tmp_path, **env).refused("was not kept", "--agent")
    assert "PASS" in here("replay", runs[2].run_id, cwd=tmp_path, **env).out


TRACED = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())

async def traced(scope, receive, send):
    if scope["type"] != "http":
        return await app(scope, receive, send)
    with trace.get_tracer("web").start_as_current_span("their own", kind=trace.SpanKind.SERVER):
        await app(scope, receive, send)
"""


@pytest.mark.slow
def test_a_request_below_a_span_of_the_users_own(tmp_path: Path, model: ModelServer) -> None:
    """It is that span's run, and is made again: its command would wait for nobody."""
    with served(tmp_path, model, code=LINE + APP + TRACED, app="app:traced") as client:
        assert client.post("/chat", json={"ask": "hello"}).status_code == 200
    with open_store(tmp_path / ".tracefork") as store:
        (run,) = [run for run in store.runs() if run.steps]
        assert (run.name, run.steps, run.entrypoint) == ("their own", 3, "asgi:app:traced")
    env = {"MODEL_URL": model.openai_url}
    assert "PASS    bit-exact" in here("replay", "last", "--timeout", "30", cwd=tmp_path, **env).out
    assert "1 edited, 2 live" in here("fork", "last@0", "--text", "other", cwd=tmp_path, **env).out


@pytest.mark.slow
def test_an_application_that_asks_a_model_at_its_start(tmp_path: Path, model: ModelServer) -> None:
    """What it asks then is no part of the request's run: a replay has no answer to it, and says why."""
    code = APP.replace("app.state.ready = True", "app.state.ready = await say('good morning')")
    with served(tmp_path, model, *RUN, code=code) as client:
        assert client.post("/chat", json={"ask": "hello"}).status_code == 200
    refused = here("replay", "last", cwd=tmp_path, MODEL_URL=model.openai_url)
    assert refused.status == 3
    assert "the application makes this call while it starts: ask for it in the first request" in refused.err


def application(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """The function that asks an application of this source."""
    (folder / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    return find(f"asgi:{name}:app")


ECHO = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        {lifespan}
    message = await receive()
    await send({{"type": "http.response.start", "status": 201, "headers": []}})
    await send({{"type": "http.response.body", "body": message["body"], "more_body": False}})
    assert (await receive())["type"] == "http.disconnect"
"""


def test_an_application_is_asked_in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that knows of no lifespan; bytes that are no text come back as such; it hears of the end."""
    ask = application(ECHO.format(lifespan="raise TypeError(scope['type'])"), tmp_path, monkeypatch, "plain")
    assert (ask.__module__, ask.__qualname__) == ("asgi:plain", "app")
    assert asyncio.run(ask(method="POST", body="hi")) == {"status": 201, "body": "hi"}
    assert asyncio.run(ask(body="base64:/w=="))["body"] == "base64:/w=="


def test_an_application_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says why, or that it takes too long; a name that is none is refused."""
    failing = 'await send({{"type": "lifespan.startup.failed", "message": "no database"}}); return'
    ask = application(ECHO.format(lifespan=failing.format()), tmp_path, monkeypatch, "failing")
    with pytest.raises(RuntimeError, match="did not start: no database"):
        asyncio.run(ask())
    monkeypatch.setattr("tracefork_otel.decorators.request_call.STARTED_S", 0.05)
    ask = application(ECHO.format(lifespan="await receive(); await receive()"), tmp_path, monkeypatch, "slow")
    with pytest.raises(TimeoutError, match="did not start within"):
        asyncio.run(ask())
    for name, why in (("asgi:plain_none", "write it like"), ("asgi:failing:other", "has no other")):
        with pytest.raises(ImportError, match=why):
            find(name)


def test_a_task_that_outlives_its_request(capture: Capture, raw: str) -> None:
    """What it only asks then is the process's own run, and no span of the request is left open."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def later() -> None:
            await asyncio.sleep(0.05)
            async with httpx2.AsyncClient() as client:
                await client.get(f"{raw}/empty")

        tasks.append(asyncio.create_task(later()))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def main() -> None:
        recorded = AsgiApplication(app, "asgi:app:app")
        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}

        async def nothing(*message: Any) -> Any:
            return {"type": "http.disconnect"}

        await recorded(scope, nothing, nothing)
        await asyncio.gather(*tasks)

    tasks: list[asyncio.Task[None]] = []
    capture.on()
    asyncio.run(main())
    recorded = capture.read()
    assert recorded.only().outcome == "complete"
    assert not [span for span in recorded.spans if span.name == "GET /"]


def test_the_main_thread_is_no_part_of_what_another_answers(capture: Capture, raw: str) -> None:
    """What it asks while its own server answers is the program's; what another thread asks, the request's."""
    begun, asked = threading.Event(), threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        begun.set()
        assert asked.wait(20)
        start_response("200 OK", [])
        return [b""]

    capture.on()
    served = WsgiApplication(app, "wsgi:app:app")
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/served"}
    with ThreadPoolExecutor(2) as threads:
        answering = threads.submit(served, environ, lambda *_: None)
        assert begun.wait(20)
        httpx2.get(f"{raw}/empty?by=main")
        threads.submit(httpx2.get, f"{raw}/empty?by=thread").result()
        asked.set()
        answering.result()
    recorded = capture.read()
    served_in = recorded.span("GET /served").trace_id
    by = {one.request.url.rpartition("=")[2]: one.trace_id == served_in for one in recorded.exchanges}
    assert by == {"main": False, "thread": True}
