"""Fixtures that tests of both packages share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from recorded import Recorded, read_store
from tracefork_backend import spelling
from tracefork_backend.simulate import ModelServer

from tracefork_otel import TraceforkInstrumentor

# `--hypothesis-profile thorough` tries each property with many more values, as .ci/run does.
hypothesis.settings.register_profile("quick", max_examples=20, deadline=None)
hypothesis.settings.register_profile("thorough", max_examples=100, deadline=None)
hypothesis.settings.load_profile("quick")

# Started in the background, a shell has Ctrl-C ignored, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Whatever a test starts makes its key here and not in the home of who runs the tests.
STATE = tempfile.mkdtemp(prefix="tracefork-tests-")
os.environ["XDG_STATE_HOME"] = STATE


def pytest_unconfigure() -> None:
    """Nothing of the tests' own key is left."""
    shutil.rmtree(STATE, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that are allowed the most time come first: at the end each would be one worker's alone."""

    def allowed(item: pytest.Item) -> float:
        mark = item.get_closest_marker("timeout")
        return float(mark.args[0]) if mark and mark.args else 0.0

    items.sort(key=allowed, reverse=True)


class Capture:
    """The recorder of this process, turned on and off by a test."""

    def __init__(self, store: Path) -> None:
        self.store = store

    def on(self, **settings: Any) -> None:
        """Recording is on; the stock HTTP spans are off unless asked for."""
        TraceforkInstrumentor().instrument(**{"store": self.store, "http_spans": False, **settings})

    def off(self) -> None:
        """Recording is off."""
        if TraceforkInstrumentor().is_instrumented_by_opentelemetry:
            TraceforkInstrumentor().uninstrument()

    def read(self) -> Recorded:
        """Recording is off, and this is what the store holds."""
        self.off()
        return read_store(self.store)


@pytest.fixture(autouse=True)
def _as_many_digits_as_at_start() -> None:
    # No store that another test has read says how many digits of a run's id are printed.
    spelling.use_digits(spelling.DIGITS)


@pytest.fixture
def capture(tmp_path: Path) -> Iterator[Capture]:
    """A recorder with a store of its own, off at first and off again at the end."""
    recorder = Capture(tmp_path / "store")
    yield recorder
    recorder.off()


@pytest.fixture(scope="session")
def raw() -> Iterator[str]:
    """The base URL of the awkward HTTP routes, one server for all tests of a worker."""
    with ModelServer() as server:
        yield f"{server.url}/raw"


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """A model server that remembers what came in."""
    with ModelServer() as running:
        yield running


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of `model.test`, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("certificate")
    made, key = folder / "cert.pem", folder / "key.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=model.test"
    extensions = ["-addext", "subjectAltName=DNS:model.test,DNS:localhost,IP:127.0.0.1"]
    argv = ["openssl", *words.split(), *extensions, "-keyout", str(key), "-out", str(made)]
    subprocess.run(argv, check=True, capture_output=True)
    return made, key


@pytest.fixture
def exported() -> InMemorySpanExporter:
    """What the user's own exporter received."""
    return InMemorySpanExporter()


@pytest.fixture
def provider(exported: InMemorySpanExporter) -> Iterator[TracerProvider]:
    """A tracer provider of the user's own, which exports into `exported`."""
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(exported))
    yield made
    made.shutdown()
