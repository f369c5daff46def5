"""Who is answered, and what a browser may do with it: each line of the page's security."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from stored import record
from tracefork_backend.page.guard import POLICY
from tracefork_backend.page.server import PageServer

Serve = Callable[..., PageServer]


def url(page: PageServer, path: str = "/") -> str:
    """An address of the page."""
    return f"http://127.0.0.1:{page.port}{path}"


def test_an_answer_lets_a_browser_do_nothing_else(page: Serve, tmp_path: Path) -> None:
    """No script but ours, no frame, no other address, nothing kept, nothing told to others."""
    record(tmp_path)
    made = page(tmp_path)
    for path in ("/", "/static/page.css", "/nothing", "/sql?q=nonsense"):
        headers = httpx2.get(url(made, path)).headers
        assert headers["content-security-policy"] == POLICY
        assert "unsafe" not in POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1", "127.0.0.1:1", "evil.example:{port}", "localhost.evil:{port}", "[::1"],
)
def test_another_host_is_not_answered(page: Serve, tmp_path: Path, host: str) -> None:
    """421 for whatever name a rebound web page comes by, another port of this machine's among them."""
    made = page(tmp_path)
    answer = httpx2.get(url(made), headers={"host": host.format(port=made.port)})
    assert answer.status_code == 421
    assert "store" not in answer.text


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_each_name_of_this_machine_is_answered(page: Serve, tmp_path: Path, name: str) -> None:
    """As people type it."""
    made = page(tmp_path)
    assert httpx2.get(url(made), headers={"host": f"{name}:{made.port}"}).status_code == 200


def test_a_foreign_page_may_send_nobody_here(page: Serve, tmp_path: Path) -> None:
    """Neither by its origin nor by what the browser says of where a request came from."""
    made = page(tmp_path)
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": f"http://127.0.0.1:{made.port + 1}"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
    ):
        assert httpx2.get(url(made), headers=headers).status_code == 403, headers
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert httpx2.get(url(made), headers=link).status_code == 200
    assert httpx2.get(url(made), headers={"origin": f"http://127.0.0.1:{made.port}"}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_what_acts_shows_the_token_of_a_page(page: Serve, tmp_path: Path, method: str) -> None:
    """403 without it and with another one; with it the request is looked at."""
    made = page(tmp_path)
    for headers in ({}, {"x-tracefork-token": "guessed"}, {"x-tracefork-token": ""}):
        assert httpx2.request(method, url(made, "/job/1/stop"), headers=headers).status_code == 403
    token = re.search(r'"X-Tracefork-Token": "([^"]+)"', httpx2.get(url(made)).text)
    assert token is not None
    answer = httpx2.request(method, url(made, "/job/1/stop"), headers={"x-tracefork-token": token[1]})
    assert answer.status_code == (404 if method == "POST" else 405)


def test_a_page_with_a_token_lets_in_who_has_it(page: Serve, tmp_path: Path) -> None:
    """By the printed address once, then by a cookie that no other site's request carries."""
    made = page(tmp_path, entry="secret")
    assert httpx2.get(url(made)).status_code == 403
    assert httpx2.get(url(made, "/static/page.css")).status_code == 403
    assert httpx2.get(url(made, "/?token=other")).status_code == 403
    entered = httpx2.get(url(made, "/sql?token=secret&q=select+1"), follow_redirects=False)
    assert entered.status_code == 303
    assert entered.headers["location"] == "/sql?q=select+1"
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    answer = httpx2.get(url(made), headers={"cookie": cookie.partition(";")[0]})
    assert answer.status_code == 200
    assert httpx2.get(url(made), headers={"cookie": "tracefork=other"}).status_code == 403
    twice = httpx2.get(url(made, "//evil.example/?token=secret"), follow_redirects=False)
    assert twice.headers["location"].startswith("/evil.example")


def test_looking_changes_nothing(page: Serve, tmp_path: Path) -> None:
    """Whatever is asked for by GET, no file of the store is another one then."""
    run_id = record(tmp_path)
    made = page(tmp_path, allow_run=True, budget_usd=1)
    httpx2.get(url(made))  # what its recorder left is sealed
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for path in (
        "/", f"/run/{run_id}", f"/run/{run_id}/step/0/fork", f"/run/{run_id}/blame", f"/run/{run_id}/tree",
        "/blame", "/matrix", "/jobs", "/doctor", "/sql?q=select+*+from+runs", "/job/1/stop",
        f"/run/{run_id}/step/0/estimate",
    ):  # fmt: skip
        httpx2.get(url(made, path))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert list(made.page.jobs) == []


def test_a_large_form_is_refused(page: Serve, tmp_path: Path) -> None:
    """So is one that is sent for ever; the page goes on."""
    run_id = record(tmp_path)
    made = page(tmp_path, allow_run=True)
    token = {"x-tracefork-token": made.page.permits.action}
    big = b"value=" + b"x" * (33 * 1024 * 1024)
    answer = httpx2.post(url(made, f"/run/{run_id}/step/0/fork"), content=big, headers=token, timeout=60)
    assert answer.status_code == 413
    with socket.create_connection(("127.0.0.1", made.port)) as half:
        half.sendall(b"POST /run/1/blame HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 999\r\n\r\nx")
        assert httpx2.get(url(made)).status_code == 200
