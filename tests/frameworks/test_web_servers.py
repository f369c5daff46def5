"""Web servers as people start them: each request that asks a model is a run, made again without a port."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from e2e.command import environment, here
from tracefork_backend.simulate import ModelServer, Reply
from tracefork_backend.store import open_store

pytestmark = pytest.mark.slow

LINE = (
    "from tracefork_otel import TraceforkInstrumentor\nTraceforkInstrumentor().instrument(http_spans=False)\n"
)
SAY = """
import os
import httpx2

def say(words):
    said = {"model": "gpt-4o", "messages": [{"role": "user", "content": words}]}
    answer = httpx2.post(os.environ["MODEL_URL"] + "/chat/completions", json=said)
    return answer.json()["choices"][0]["message"]["content"]
"""
FLASK = (
    SAY
    + """
from concurrent.futures import ThreadPoolExecutor
from flask import Flask, Response, request

app = Flask(__name__)

@app.get("/health")
def health():
    return "ok"

@app.post("/chat")
def chat():
    first = say(request.get_json()["ask"] + str(dict(request.args)))
    return {"said": say(first + ", then?")}

@app.get("/stream")
def stream():
    return Response((f"data: {say(str(turn))}\\n\\n" for turn in range(3)), mimetype="text/event-stream")

@app.post("/threads")
def threads():
    with ThreadPoolExecutor(1) as pool:
        return {"said": list(pool.map(say, "ab"))}

@app.post("/upload")
def upload():
    file = request.files["file"]
    return say(f"{file.filename}: {len(file.read())} bytes")

def create_app():
    return app

if __name__ == "__main__":
    app.run(port=int(os.environ["PORT"]))
"""
)
FASTAPI = (
    SAY
    + """
from fastapi import FastAPI

app = FastAPI()

@app.get("/health")
def health():
    return "ok"

@app.post("/chat")
def chat(body: dict):
    return {"said": say(say(body["ask"]) + ", then?")}
"""
)
DJANGO = (
    SAY
    + """
import json, sys
import django
from django.conf import settings
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

if not settings.configured:
    settings.configure(
        DEBUG=True, SECRET_KEY="none", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"],
        WSGI_APPLICATION="app.application",
        INSTALLED_APPS=["django.contrib.staticfiles"], STATIC_URL="/static/",
    )
    django.setup()

def chat(request):
    first = say(json.loads(request.body)["ask"] + str(dict(request.GET)))
    return JsonResponse({"said": say(first + ", then?")})

def stream(request):
    return StreamingHttpResponse(f"data: {say(str(turn))}\\n\\n" for turn in range(3))

urlpatterns = [path("health", lambda request: HttpResponse("ok")), path("chat", chat), path("stream", stream)]

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
by_asgi = get_asgi_application()

if __name__ == "__main__":
    sys.modules["app"] = sys.modules["__main__"]
    from django.core.management import execute_from_command_line

    execute_from_command_line([sys.argv[0], "runserver", os.environ["PORT"], *sys.argv[1:]])
"""
)
FLASK_AT_IMPORT = FLASK.partition("if __name__")[0] + "app.run(port=int(os.environ['PORT']), debug=DEBUG)\n"
MADE = (
    SAY
    + """
from contextlib import asynccontextmanager
from fastapi import FastAPI

@asynccontextmanager
async def life(app):
    app.state.started = True
    yield

def make():
    made = FastAPI(lifespan=life)

    @made.get("/health")
    def health():
        return "ok"

    @made.post("/chat")
    def chat(body: dict):
        return {"said": say(say(body["ask"]) + ", then?"), "started": made.state.started}

    return made
"""
)
SERVED_AT_IMPORT = MADE + "\nimport uvicorn\napp = make()\nuvicorn.run(app, port=int(os.environ['PORT']))\n"
WAITRESS = (
    "import os, waitress, app\nwaitress.serve(app.app, host='127.0.0.1', port=int(os.environ['PORT']))\n"
)


@contextmanager
def served(
    folder: Path, code: str, model: ModelServer, command: str, *, run: bool
) -> Iterator[httpx2.Client]:
    """A client of the application, which a server serves that is started as somebody types it."""
    (folder / "app.py").write_text(code if run else LINE + code)
    (folder / "serve.py").write_text(WAITRESS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    program, *words = command.replace("PORT", port).split()
    recording = [sys.executable, "-m", "tracefork_backend.cli", "run", "--"] if run else []
    server = subprocess.Popen(
        [*recording, str(Path(sys.executable).with_name(program)), *words],
        cwd=folder,
        env=environment(MODEL_URL=model.openai_url, PORT=port, PATH=os.environ["PATH"]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            deadline = time.monotonic() + 40
            while True:
                try:
                    assert client.get("/health").status_code == 200
                    break
                except httpx2.TransportError:
                    assert server.poll() is None, command
                    assert time.monotonic() < deadline, command
                    time.sleep(0.1)
            yield client
    finally:
        for number in (signal.SIGINT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(15)
                break


FLASKS = (
    ("flask", "flask --app app run --port PORT", "wsgi:app:app"),
    ("flask", "flask --app app:create_app run --debug --port PORT", "wsgi:app:app"),
    ("flask", "python app.py", "wsgi:app:app"),
    ("waitress", "python serve.py", "wsgi:app:app"),
    ("gunicorn", "gunicorn -w 2 -b 127.0.0.1:PORT app:app", "wsgi:app:app"),
    ("gunicorn", "gunicorn --threads 4 -b 127.0.0.1:PORT app:create_app()", "wsgi:app:create_app()"),
    ("hypercorn", "hypercorn -b 127.0.0.1:PORT app:app", "wsgi:app:app"),
    ("uvicorn", "uvicorn --interface wsgi --port PORT app:app", "wsgi:app:app"),
    ("granian", "granian --interface wsgi --port PORT app:app", "wsgi:app:app"),
)
FASTAPIS = (
    ("gunicorn", "gunicorn -k uvicorn_worker.UvicornWorker -b 127.0.0.1:PORT app:app", "asgi:app:app"),
    ("gunicorn.workers.gasgi", "gunicorn -k asgi -b 127.0.0.1:PORT app:app", "asgi:app:app"),
    ("hypercorn", "hypercorn -b 127.0.0.1:PORT app:app", "asgi:app:app"),
    ("fastapi_cli", "fastapi run --host 127.0.0.1 --port PORT app.py", "asgi:app:app"),
    ("fastapi_cli", "fastapi dev --port PORT app.py", "asgi:app:app"),
    ("granian", "granian --interface asgi --port PORT app:app", "asgi:app:app"),
    ("daphne", "daphne -p PORT app:app", "asgi:app:app"),
)
FACTORIES = (
    ("hypercorn", "hypercorn -b 127.0.0.1:PORT app:make()", "asgi:app:make()"),
    ("uvicorn", "uvicorn --factory --port PORT app:make", "asgi:app:make()"),
    ("granian", "granian --interface asgi --factory --port PORT app:make", "asgi:app:make()"),
)
DJANGOS = (
    ("django", "python app.py", "wsgi:app:application"),
    ("django", "python app.py --noreload --nostatic", "wsgi:app:application"),
    ("gunicorn", "gunicorn -b 127.0.0.1:PORT app", "wsgi:app:application"),
    ("uvicorn", "uvicorn --port PORT app:by_asgi", "asgi:app:by_asgi"),
)
AT_IMPORT = {
    "uvicorn": ("fastapi", SERVED_AT_IMPORT, "asgi:app:app"),
    "flask": ("flask", FLASK_AT_IMPORT.replace("DEBUG", "False"), "wsgi:app:app"),
    "flask with its reloader": ("flask", FLASK_AT_IMPORT.replace("DEBUG", "True"), "wsgi:app:app"),
}
"""Modules that serve as they are imported: a request is made again of what they had by then."""
CASES = [
    *(
        pytest.param(frame, code, *case, run, id=f"{case[1]} ({'run' if run else 'the one line'})")
        for frame, code, cases in (
            ("flask", FLASK, FLASKS),
            ("fastapi", FASTAPI, FASTAPIS),
            ("fastapi", MADE, FACTORIES),
            ("django", DJANGO, DJANGOS),
        )
        for at, case in enumerate(cases)
        for run in (True, *([False] if at == 0 else []))
    ),
    *(
        pytest.param(frame, code, frame, "python app.py", entry, True, id=f"{server}, at import")
        for server, (frame, code, entry) in AT_IMPORT.items()
    ),
]


@pytest.mark.parametrize(("frame", "code", "needs", "command", "entry", "run"), CASES)
def test_each_request_is_a_run(
    tmp_path: Path, frame: str, code: str, needs: str, command: str, entry: str, run: bool
) -> None:
    """Whatever serves it: also streamed, uploaded, and by threads; it replays without a port, and forks."""
    for module in (frame, needs):
        pytest.importorskip(module)
    with ModelServer(lambda call: Reply(text=f"<{call.messages[-1][1]}>")) as model:
        with served(tmp_path, code, model, command, run=run) as client:
            assert client.post("/chat?x=1", json={"ask": "hello"}).status_code == 200
            expected = [("POST /chat", 2)]
            if "stream" in code:
                assert client.get("/stream").text.count("data:") == 3
                expected.append(("GET /stream", 3))
            if "/threads" in code:
                assert client.post("/threads").status_code == 200
                assert client.post("/upload", files={"file": ("a.bin", bytes(range(256)))}).status_code == 200
                expected += [("POST /threads", 2), ("POST /upload", 1)]
            time.sleep(0.3)  # a server closes an answer after its client has all of it
        with open_store(tmp_path / ".tracefork") as store:
            runs = [one for one in reversed(store.runs()) if one.steps]
            assert [(one.name, one.steps) for one in runs] == expected
            assert {one.entrypoint for one in runs} == {entry}
        arrived = len(model.requests)
        for one in runs:
            replayed = here("replay", one.run_id, cwd=tmp_path, MODEL_URL=model.openai_url)
            assert "PASS    bit-exact" in replayed.out, replayed.out + replayed.err
        assert len(model.requests) == arrived
        forked = here(
            "fork", f"{runs[0].run_id}@0", "--text", "other", cwd=tmp_path, MODEL_URL=model.openai_url
        )
        assert "1 edited, 1 live" in forked.out, forked.out + forked.err
        assert "<other, then?>" in forked.out
