"""What holds of every client on each way to a server: kept connections, TLS, proxies and their tunnels."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Capture
from otel.seam.clients import CLIENTS, Client, Seen
from otel.seam.servers import echoing, saying
from otel.seam.staged import change, forking, replayed, replaying
from recorded import read_store

FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


@CLIENTS
def test_connections_are_kept(client: Client, capture: Capture, tmp_path: Path) -> None:
    """As many as without us for requests that follow one another, of whatever body."""
    with echoing() as origin:
        url = f"http://127.0.0.1:{origin.port}/"

        def agent() -> list[Seen]:
            origin.peers.clear()
            bodies: list[Any] = [b"a", None, iter([b"b", b"c"]), b"d"]
            with client.open() as session:
                return [session.ask("POST", url, body) for body in bodies]

        agent()
        bare = len(origin.peers)
        capture.on()
        agent()
        assert len(origin.peers) == bare == 1
        assert len(capture.read().exchanges) == 4


@CLIENTS
def test_over_tls(client: Client, certificate: tuple[Path, Path], capture: Capture, tmp_path: Path) -> None:
    """Recorded under the address that was asked for, and given back to who has no certificate any more."""

    def agent() -> list[Seen]:
        with client.open(trusted=certificate[0]) as session:
            return [session.ask("POST", url, text) for text in ("one", "two")]

    with echoing(secure=certificate) as origin:
        url = f"https://127.0.0.1:{origin.port}/v1"
        capture.on()
        seen = agent()
        recorded = capture.read()
    assert [one.body for one in seen] == [b"one", b"two"]
    assert [one.request.url for one in recorded.in_order()] == [url] * 2
    assert replayed(recorded, tmp_path / "r", agent) == seen
    with replaying(recorded, tmp_path / "untrusted"):
        assert client.ask("POST", url, "two").body == b"two"


@CLIENTS
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_by_way_of_a_proxy(
    client: Client, scheme: str, certificate: tuple[Path, Path], capture: Capture, tmp_path: Path
) -> None:
    """Recorded as it was addressed, by a tunnel too; replayed without it; a fork goes live by it."""
    url = f"{scheme}://model.test/v1"

    def agent(texts: str) -> list[Seen]:
        with client.open(proxy=f"http://127.0.0.1:{proxy.port}", trusted=certificate[0]) as session:
            return [session.ask("POST", f"{url}?n={text}", f'{{"say": "{text}"}}') for text in texts]

    with (
        echoing(secure=certificate) as origin,
        echoing(to=origin.port) as proxy,
    ):
        agent("a")
        bare = [one[:2] for one in proxy.asked]
        proxy.asked.clear()
        capture.on()
        seen = agent("abc")
        recorded = capture.read()
        assert [one[:2] for one in proxy.asked][: len(bare)] == bare
        assert bare == [("CONNECT", "model.test:443") if scheme == "https" else ("POST", f"{url}?n=a")]
        assert [one.request.url for one in recorded.in_order()] == [f"{url}?n={text}" for text in "abc"]
        assert all(
            "proxy" not in name.lower() for one in recorded.exchanges for name, _ in one.request.headers
        )
        proxy.asked.clear()
        origin.asked.clear()
        edited = change("request", edits=(("say", "edited"),))
        with forking(recorded, tmp_path / "f", edited) as store:
            forked = agent("abc")
        asked = origin.asked if scheme == "https" else proxy.asked
        targets = [target.rpartition("/")[2] for method, target, _ in asked if method == "POST"]
        assert targets == ["v1?n=b", "v1?n=c"]
        assert b"edited" in forked[1].body
        assert forked[0] == seen[0]
    assert [one.request.url for one in read_store(store).in_order()] == [f"{url}?n={text}" for text in "abc"]
    assert replayed(recorded, tmp_path / "r", lambda: agent("abc")) == seen


@CLIENTS
@pytest.mark.parametrize(
    ("scheme", "said"),
    [("http", None), ("https", None), ("http", ()), ("http", (FORBIDDEN,)), ("https", (FORBIDDEN,))],
    ids=["http", "https", "hangs up", "http no", "https no"],
)
def test_a_proxy_that_refuses(
    client: Client,
    scheme: str,
    said: tuple[bytes, ...] | None,
    certificate: tuple[Path, Path],
    capture: Capture,
    tmp_path: Path,
) -> None:
    """One that does not listen, hangs up or says no is what the exchange ends with, in a replay as then."""

    def agent() -> Seen:
        with client.open(proxy=proxy, trusted=certificate[0]) as session:
            return session.ask("POST", f"{scheme}://model.test/v1", "asked")

    with saying(*said or ()) as url:
        proxy = url.removesuffix("/asked") if said is not None else "http://127.0.0.1:9"
        plain = agent()
        capture.on()
        seen = agent()
        recorded = capture.read()
    exchange = recorded.only()
    is_answered = scheme == "http" and bool(said)
    assert seen == plain
    assert bool(seen.error) is not is_answered
    assert (exchange.outcome, exchange.request.body) == (
        "complete" if is_answered else "no_response",
        b"asked",
    )
    assert replayed(recorded, tmp_path / "r", agent) == seen


@CLIENTS
def test_nothing_of_a_replay_reaches_the_network(
    client: Client, capture: Capture, raw: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a proxy too, over TLS, or where the tape has no answer: none is tried, no name is asked for."""
    capture.on()
    client.ask("GET", f"{raw}/empty")
    recorded = capture.read()
    asked: list[object] = []

    def noted(name: str) -> Callable[..., Any]:
        def tried(*args: Any, **more: Any) -> Any:
            asked.append((name, args))
            raise OSError("no network")

        return tried

    with (
        replaying(recorded, tmp_path / "r"),
        client.open() as session,
        client.open(proxy="http://127.0.0.1:9") as proxied,
        monkeypatch.context() as patched,
    ):
        patched.setattr(socket.socket, "connect", noted("connect"))
        patched.setattr(socket, "getaddrinfo", noted("getaddrinfo"))
        told = [
            session.ask("GET", f"{raw}/other"),
            session.ask("GET", "https://127.0.0.1:9/"),
            session.ask("GET", "https://elsewhere.test/"),
            proxied.ask("GET", "https://model.test/v1"),
            proxied.ask("GET", "http://model.test/v1"),
        ]
        again = session.ask("GET", f"{raw}/empty")
    assert asked == []
    assert ["tracefork replay: " in one.message for one in told] == [True] * 5
    assert again.status == 200
