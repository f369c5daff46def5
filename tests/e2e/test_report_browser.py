"""The report in a real browser: from its file, light and dark, narrow and wide, with nothing refused."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from reported import booking
from tracefork_backend.report.html import render, write

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    # Not /dev/shm, which is small in containers.
    "--disable-dev-shm-usage",
)
PROBE = """<script>
const root = getComputedStyle(document.documentElement), body = getComputedStyle(document.body);
document.body.dataset.background = body.backgroundColor;
document.body.dataset.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
document.body.dataset.drawn = [...document.querySelectorAll("svg")]
  .map(svg => Math.round(svg.getBoundingClientRect().height)).join(" ");
document.body.dataset.marked = document.querySelectorAll("del, ins").length;
</script>"""
"""Read what the browser made of the page; it goes into a copy whose policy allows it."""


@pytest.fixture(scope="module")
def chromium() -> str:
    """The browser's path; CI has to have one, elsewhere the test is skipped without."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        assert os.environ.get("CI") != "true", "no Chromium: .ci/chromium installs it"
        pytest.skip("no Chromium here: .ci/chromium installs it")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a booking that step 2 lost."""
    return write(render(booking()), tmp_path_factory.mktemp("report") / "report.html")


def browse(chromium: str, page: Path, profile: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """What the browser did with a page."""
    return subprocess.run(
        [chromium, *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
        # The machine's message bus is none of the test's business.
        env={**os.environ, "DBUS_SESSION_BUS_ADDRESS": "disabled:"},
    )


def console(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What pages wrote to the console: script errors, refusals by the policy, failed loads."""
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line or "Refused to" in line]


def probed(page: Path, folder: Path) -> Path:
    """Return a copy of the page that says how it was laid out."""
    text = page.read_text()
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    assert policy in text
    text = text.replace(policy, f"{policy}; script-src 'unsafe-inline'").replace("</body>", f"{PROBE}</body>")
    copy = folder / "probed.html"
    copy.write_text(text)
    return copy


@pytest.mark.slow
def test_the_page_opens_without_a_complaint(chromium: str, page: Path, tmp_path: Path) -> None:
    """As written, under its own policy: the headline is there and the console is empty."""
    done = browse(chromium, page, tmp_path, "--dump-dom")
    assert "<h1>Changing step 2 saves this run.</h1>" in done.stdout
    assert console(done) == []


@pytest.mark.slow
def test_the_console_would_show_a_refusal(chromium: str, page: Path, tmp_path: Path) -> None:
    """A script put into the page is refused by its policy, and the test before would see that."""
    bad = tmp_path / "bad.html"
    bad.write_text(page.read_text().replace("</body>", "<script>document.title = 'ran'</script></body>"))
    done = browse(chromium, bad, tmp_path / "profile", "--dump-dom")
    assert console(done) != []
    assert "<title>ran</title>" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "width", "dark"),
    [(1, 1100, False), (0, 1100, True), (1, 500, False)],
    ids=["light", "dark", "narrow"],
)
def test_the_page_is_laid_out(
    chromium: str, page: Path, tmp_path: Path, scheme: int, width: int, dark: bool
) -> None:
    """Colours follow the reader's setting, both pictures are drawn, and nothing sticks out sideways."""
    done = browse(
        chromium,
        probed(page, tmp_path),
        tmp_path / "profile",
        f"--blink-settings=preferredColorScheme={scheme}",
        f"--window-size={width},1200",
        "--dump-dom",
    )
    assert console(done) == []
    seen = dict(re.findall(r'data-(\w+)="([^"]*)"', done.stdout))
    brightness = sum(map(int, re.findall(r"\d+", seen["background"])[:3]))
    assert (brightness < 3 * 64) is dark
    assert brightness < 3 * 64 or brightness > 3 * 200
    assert int(seen["overflow"]) <= 0
    assert [int(height) > 80 for height in seen["drawn"].split()] == [True, True]
    assert int(seen["marked"]) >= 2


@pytest.mark.slow
def test_the_page_prints(chromium: str, page: Path, tmp_path: Path) -> None:
    """Printed to a file it is a document of a few pages."""
    file = tmp_path / "report.pdf"
    browse(chromium, page, tmp_path / "profile", f"--print-to-pdf={file}", "--no-pdf-header-footer")
    data = file.read_bytes()
    assert data.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 5
