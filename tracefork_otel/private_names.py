"""Every private name of another library that we rely on, in one place; a test fails when one moves."""

from __future__ import annotations

from typing import NamedTuple

SEND = "_send_single_request"
"""`Client` and `AsyncClient` of httpx2 and httpx: one request, one response, below redirects and auth."""
TRANSPORT_FOR_URL = "_transport_for_url"
"""The same classes: asked by `SEND` for the transport; a replay answers it with one that plays a tape."""
MAKE_REQUEST = "_make_request"
"""`HTTPConnectionPool` of urllib3: one attempt on one connection, below retries and redirects."""
PREPARE_PROXY = "_prepare_proxy"
"""The pools of urllib3: connects by way of a proxy, before a request is known."""
RAISE_TIMEOUT = "_raise_timeout"
"""The same: raises an error of urllib3's where this one says that the time is over."""
CONNECTED_TO_PROXY = "_has_connected_to_proxy"
"""A connection of urllib3: whether its proxy answered, which decides how its errors are told."""
GET_CONNECTION = "_get_conn"
"""`HTTPConnectionPool` of urllib3: gives a connection, which is not made yet."""
ORIGINAL_RESPONSE = "_original_response"
"""A response of urllib3: that of `http.client` behind it."""
FINALIZING = "_finalizing"
"""A file of `io`, while it is closed because nobody has it any more (held by test_contract.py)."""
BODY = "_body"
"""The same: its body, where it is read at once."""
PARSER = "_parser"
"""A connection of aiohttp: what parses the response that it waits for."""
TIMER = "_timer"
"""A request of aiohttp: the timer of its whole time."""
CANCELLED = "_cancelled"
"""That timer: whether its time is over."""
CALLBACKS = "_callbacks"
"""A future of asyncio: what is called at its end, and so who waits for it."""
PARENT_TASK = "_parent_task"
"""A `TaskGroup` of asyncio: the task that has it."""
LOOP_STOPS = "_run_until_complete_cb"
"""`asyncio.base_events`: what is called at the end of the task that a loop was started for."""
BUFFER, WAITER = "_buffer", "_waiter"
"""A body of aiohttp: what came and was not read, and who waits for more."""
VALUE = "_value"
"""A body of bytes that aiohttp sends: the bytes."""
RELEASE = "_release"
"""A connector of aiohttp: takes a connection back."""
RUN_MODULE = "_run_module_as_main"
"""`runpy`: what `python -m` calls, in the module `__main__` that is there."""
GLOBAL_PROVIDER = "_TRACER_PROVIDER"
"""`opentelemetry.trace`: the provider that was set, read without loading the one the environment names."""

PROXY_TRACER = "_tracer"
"""`opentelemetry.trace.ProxyTracer`: the tracer behind it, which does nothing until a provider is set."""
GRANIAN_ASGI, GRANIAN_WSGI = "_asgi_call_wrap", "_wsgi_call_wrap"
"""Where granian starts its workers: makes of an application what its server calls."""
INITIALIZING = "_initializing"
"""The `__spec__` of a module: whether it is still being imported."""


class Private(NamedTuple):
    """A private name, and where it is looked for."""

    module: str
    owner: str | None
    """A class or another attribute of the module, or None for the module itself."""
    name: str
    made_with: tuple[object, ...] | None = None
    """What an instance is made with, if only instances have it."""


_CLIENTS = (("httpx2", "Client"), ("httpx2", "AsyncClient"), ("httpx", "Client"), ("httpx", "AsyncClient"))
_PROXY = ("_instrumenting_module_name", "_instrumenting_library_version", "_schema_url", "_attributes")
_UVICORN = ("startup", "main_loop", "on_tick", "shutdown", "capture_signals")

PRIVATE_NAMES: tuple[Private, ...] = (
    *(Private(module, owner, name) for module, owner in _CLIENTS for name in (SEND, TRANSPORT_FOR_URL)),
    Private("urllib3.connectionpool", "HTTPConnectionPool", MAKE_REQUEST),
    Private("urllib3.connectionpool", "HTTPConnectionPool", PREPARE_PROXY),
    Private("urllib3.connectionpool", "HTTPConnectionPool", RAISE_TIMEOUT),
    Private("urllib3.connection", "HTTPConnection", CONNECTED_TO_PROXY, ("127.0.0.1",)),
    Private("urllib3.connectionpool", "HTTPConnectionPool", GET_CONNECTION),
    Private("urllib3.connectionpool", "HTTPSConnectionPool", PREPARE_PROXY),
    *(Private("urllib3.response", "HTTPResponse", name, ()) for name in (ORIGINAL_RESPONSE, BODY)),
    Private("aiohttp.client_proto", "ResponseHandler", PARSER),
    Private("aiohttp.client_reqrep", "ClientRequest", BODY),
    Private("aiohttp.helpers", "TimerContext", CANCELLED),
    *(Private("aiohttp.streams", "StreamReader", name) for name in (BUFFER, WAITER)),
    Private("aiohttp.payload", "BytesPayload", VALUE, (b"",)),
    Private("aiohttp.connector", "BaseConnector", RELEASE),
    Private("opentelemetry.context", None, "_SUPPRESS_INSTRUMENTATION_KEY"),
    Private("opentelemetry.trace", None, GLOBAL_PROVIDER),
    Private("opentelemetry.trace", "ProxyTracer", PROXY_TRACER),
    *(Private("opentelemetry.trace", "ProxyTracer", name, ("library",)) for name in _PROXY),
    Private("opentelemetry.util._decorator", None, "_agnosticcontextmanager"),
    Private("json", "__spec__", INITIALIZING),
    Private("runpy", None, RUN_MODULE),
    Private("re", None, "_parser"),
    # What clocks and randomness end in, and the lanes of those who draw.
    Private("uuid", None, "_generate_time_safe"),
    Private("random", None, "_inst"),
    Private("random", None, "_urandom"),
    Private("threading", "Thread", "_target", ()),
    Private("tempfile", None, "_TemporaryFileCloser"),
    Private("asyncio.events", None, "_get_running_loop"),
    # Who waits for a task.
    Private("asyncio", "Future", CALLBACKS),
    Private("asyncio", "TaskGroup", PARENT_TASK, ()),
    Private("asyncio.base_events", None, LOOP_STOPS),
    # How an interpreter ends, for a forked child that has to end like one.
    Private("threading", None, "_shutdown"),
    Private("atexit", None, "_run_exitfuncs"),
    # Without an underscore, and documented nowhere: what the backend's server replaces and asks.
    *(Private("uvicorn", "Server", name) for name in _UVICORN),
    Private("uvicorn.server", "ServerState", "connections", ()),
    Private("uvicorn.server", "ServerState", "tasks", ()),
    *(
        Private(f"granian.server.{workers}", None, name)
        for workers in ("mp", "mt")
        for name in (GRANIAN_ASGI, GRANIAN_WSGI)
    ),
    # A unittest.TestCase that failed is told so to its item, and raises nothing.
    Private("_pytest.unittest", "TestCaseFunction", "_excinfo"),
)
