"""The page in a real Chromium: every page, and a fork from the form to its comparison."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from e2e.booking import record_failure
from e2e.command import BARE, environment
from e2e.test_report_browser import NAMES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PICTURES = "TRACEFORK_PICTURES"
"""A folder in which each page's picture is kept, for whoever develops it."""
PATHS = (
    "/",
    "/run/last",
    "/run/last?step=1&tab=changes",
    "/run/last/tree",
    "/run/last/blame",
    "/diff/last/last",
    "/blame",
    "/matrix",
    "/jobs",
    "/sql",
    "/sql?q=select+*+from+runs",
    "/doctor",
)
HEAVY = ("serious", "critical")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@contextmanager
def serving(store: Path, *words: str) -> Iterator[str]:
    """The page of a store in a process of its own, ended with the block."""
    command = [sys.executable, "-m", "tracefork_backend.cli", "serve", "--no-otlp", "--port", "0"]
    with subprocess.Popen(
        [*command, "--store", str(store), *words], stderr=subprocess.PIPE, text=True, env=environment(**BARE)
    ) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            yield line.split(" is at ")[1].split(" ")[0].rstrip("/")
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser; CI has to have one, elsewhere the tests are skipped without."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        found = None
    if found is None:
        assert os.environ.get("CI") != "true", "no browser: .ci/run installs one, and the group `browser`"
        pytest.skip("no Chromium, or no Playwright: pip install --group browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def booked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose store has a booking that fails, for step 2 asked for the wrong day."""
    folder = tmp_path_factory.mktemp("booked")
    record_failure(folder)
    return folder


@contextmanager
def opened(browser: Any, url: str, **how: Any) -> Iterator[Any]:
    """A tab; nothing may be written to its console, and nobody else be asked for anything."""
    tab = browser.new_page(**({"viewport": {"width": 1360, "height": 900}} | how))
    said: list[str] = []
    tab.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda asked: asked.url.startswith(url) or said.append(f"asked {asked.url}"))
    try:
        tab.goto(f"{url}/")
        yield tab
        assert said == []
    finally:
        tab.close()


def picture(tab: Any, name: str) -> None:
    """Keep what the tab shows, where a folder is named for it."""
    if folder := os.environ.get(PICTURES):
        tab.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def test_a_failing_run_is_mended_from_the_page_alone(chromium: Any, booked: Path) -> None:
    """From the list to the step, from its form to a fork that succeeds, and to what differs."""
    store = booked / ".tracefork"
    with serving(store, "--allow-run", "--budget", "1") as url, opened(chromium, url) as tab:
        picture(tab, "runs")
        tab.click("#list tbody a >> nth=0")
        tab.wait_for_selector("#steps")
        for _ in range(3):  # quickly: what is shown is the last one that was asked for
            tab.keyboard.press("j")
        tab.wait_for_selector("#step h2:has-text('step 3')")
        tab.click("#steps li.step >> nth=2 >> a >> nth=0")
        tab.wait_for_selector("#step h2:has-text('step 2')")
        assert "step=2" in tab.url
        picture(tab, "run")
        tab.keyboard.press("f")
        tab.wait_for_selector("#edit")
        tab.select_option("#edit select[name=kind]", "tool_input")
        tab.wait_for_selector("#edit textarea")
        assert '"flight": "JL60"' in tab.input_value("#edit textarea")
        tab.fill("#edit textarea", '{"flight": "NH176", "date": "2026-11-03"}')
        tab.fill("#edit input[name=success_re]", "BOOKED")
        tab.wait_for_selector("#planned button")
        assert "2 live calls" in tab.inner_text("#planned")
        picture(tab, "fork")
        tab.click("#planned button")
        tab.wait_for_url("**/job/*")
        tab.wait_for_selector("#job b.done", timeout=120_000)
        assert "BOOKED flight NH176" in tab.inner_text("#job")
        picture(tab, "job")
        tab.click("text=beside its parent")
        tab.wait_for_selector("tr.first")
        assert (
            "NH176" in tab.inner_text("tr.first + tr.change ins, tr.change ins >> nth=0")
            or tab.locator("ins").count()
        )
        picture(tab, "diff")
        tab.goto(f"{url}/run/last~1/tree")
        assert "success" in tab.inner_text(".tree .won")
        picture(tab, "tree")
        tab.goto(f"{url}/matrix")
        assert "100%" in tab.inner_text("tbody")
        picture(tab, "matrix")


def test_an_experiment_is_seen_while_it_runs(chromium: Any, booked: Path) -> None:
    """Started from the page, its report grows by itself, and its end is there."""
    store = booked / ".tracefork"
    with serving(store, "--allow-run", "--budget", "3") as url, opened(chromium, url) as tab:
        tab.goto(f"{url}/?kind=record")
        tab.click("#list tbody a >> nth=0")
        tab.click("text=blame >> nth=1")
        tab.wait_for_selector("[name=success_re]")
        tab.fill("[name=success_re]", "BOOKED")
        tab.fill("[name=max_trials]", "12")
        tab.click("form.edit button")
        tab.wait_for_url("**/job/*")
        tab.wait_for_selector("a:has-text('as it stands')", timeout=120_000)
        tab.click("a:has-text('as it stands')")
        tab.wait_for_selector("#experiment svg")
        tab.wait_for_selector("#experiment > .strip b:not(.running)", timeout=300_000)
        picture(tab, "blame")
        assert "as many forks were made as it was given" in tab.inner_text("#experiment .strip")
        assert "12 forks" in tab.inner_text("#experiment .strip")


def test_every_page_in_the_dark_and_narrow(chromium: Any, booked: Path) -> None:
    """No page is wider than a telephone, none writes to the console, each can be walked by the keyboard."""
    narrow = {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark"}
    with serving(booked / ".tracefork") as url, opened(chromium, url, **narrow) as tab:
        for path in PATHS:
            tab.goto(f"{url}{path}")
            wide = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, path
            assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 28)"
            tab.keyboard.press("Tab")
            assert tab.evaluate("document.activeElement.tagName") in ("A", "INPUT", "TEXTAREA"), path
            picture(tab, f"narrow-{path.strip('/').replace('/', '-').partition('?')[0] or 'runs'}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_is_in_the_way_of_anybody(chromium: Any, booked: Path, scheme: str) -> None:
    """By axe-core's rules: contrast, names of what can be pressed, what the keyboard cannot reach."""
    axe = os.environ.get("TRACEFORK_AXE")
    if not axe:
        pytest.skip("no axe-core here: .ci/axe gets it")
    # The page's own policy refuses the script that looks at it.
    tab = chromium.new_context(bypass_csp=True, color_scheme=scheme).new_page()
    with serving(booked / ".tracefork", "--allow-run") as url:
        for path in PATHS:
            tab.goto(f"{url}{path}")
            tab.evaluate(Path(axe).read_text())
            found = tab.evaluate("axe.run()")["violations"]
            serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in HEAVY]
            assert serious == [], path
    tab.context.close()
