"""In what is played a context reads its certificate authorities when it is used, and has them then."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest

from tracefork_otel.seam import authorities
from tracefork_otel.undo import Undo

ENDED = "-----END CERTIFICATE-----\n"
FIRST, OTHER, *_ = certifi.contents().split(ENDED)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A file with one authority, while reading is put off."""
    path = tmp_path / "authorities.pem"
    path.write_text(FIRST + ENDED)
    undo = Undo()
    authorities.put_off(undo)
    yield path
    undo.take_back()


def having(context: ssl.SSLContext) -> int:
    """Count what it has read, by the class, which our attributes are not in front of."""
    return len(ssl.SSLContext.get_ca_certs(context))


def test_the_first_context_reads_and_the_second_waits_until_it_is_used(file: Path) -> None:
    """Nobody who asks sees a difference."""
    assert having(ssl.create_default_context(cafile=file)) == 1
    second = ssl.create_default_context(cafile=file)
    assert having(second) == 0
    second.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
    assert having(second) == 1
    assert second.wrap_bio.__func__ is ssl.SSLContext.wrap_bio
    third = ssl.create_default_context(cafile=str(file))
    assert len(third.get_ca_certs()) == 1
    assert third.cert_store_stats()["x509_ca"] == 1


def test_what_waits_reads_also_after_the_playing(tmp_path: Path) -> None:
    """A client that an agent keeps connects as ever."""
    path = tmp_path / "authorities.pem"
    path.write_text(FIRST + ENDED)
    undo = Undo()
    authorities.put_off(undo)
    contexts = [ssl.create_default_context(cafile=path) for _ in range(2)]
    undo.take_back()
    assert having(contexts[1]) == 0
    assert len(contexts[1].get_ca_certs()) == 1
    assert having(ssl.create_default_context(cafile=path)) == 1


def test_a_file_that_cannot_be_read_is_an_error_at_once(file: Path) -> None:
    """Where and as it was; so one that was changed since it was read."""
    ssl.create_default_context(cafile=file)
    file.write_text("no certificate")
    with pytest.raises(ssl.SSLError):
        ssl.create_default_context(cafile=file)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        ssl.create_default_context(cafile=file)


def test_contexts_of_servers_and_second_files_are_read_at_once(file: Path, tmp_path: Path) -> None:
    """A context may be given to a connection that another one made; what is added comes to what waits."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    for _ in range(2):
        server.load_verify_locations(file)
    assert having(server) == 1
    other = tmp_path / "other.pem"
    other.write_text(OTHER + ENDED)
    ssl.create_default_context(cafile=file)
    client = ssl.create_default_context(cafile=file)
    client.load_verify_locations(other)
    assert having(client) == 1
    assert len(client.get_ca_certs()) == 2


def test_threads_that_use_it_at_once_all_find_it_read(file: Path) -> None:
    """None goes on with a context that another thread is still reading for."""
    ssl.create_default_context(cafile=file)
    context = ssl.create_default_context(cafile=file)
    start, seen = threading.Barrier(8), []

    def ask() -> None:
        start.wait()
        seen.append(len(context.get_ca_certs()))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 8
