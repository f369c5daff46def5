"""The five fault classes, tried at every step of agents with tools by real forks: the plant is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tracefork_backend as tf
from conftest import Capture
from tracefork_backend.blaming import changes
from tracefork_backend.simulate import ModelServer
from tracefork_backend.store import Run, open_store
from tracefork_backend.validate.agents import Careless, look_up

import tracefork_otel

GRADED = tf.regex(success="WON", failure="LOST")
MODEL = Careless()


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    """The model."""
    with ModelServer(MODEL) as running:
        yield running


@pytest.fixture
def recorded(capture: Capture, server: ModelServer, tmp_path: Path) -> Callable[[int, int], Run]:
    """Records one run of so many steps, in a store of its own, in a world that hangs on the planted step."""

    def make(steps: int, planted: int) -> Run:
        MODEL.steps, MODEL.planted = steps, planted
        capture.store = tmp_path / f"{steps}-{planted}"
        capture.on()
        tracefork_otel.agent(look_up)(server.url, steps)
        capture.off()
        return open_store(capture.store).run("last")

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", changes.FAULT_CLASSES)
def test_each_fault_finds_the_step_that_it_harms(recorded: Callable[[int, int], Run], name: str) -> None:
    """Of four steps the planted one is the root, and no other is certified."""
    run = recorded(4, 1)
    assert run.steps == 4
    result = tf.blame(run, oracle=GRADED, change=changes.fault(name), mode="intervene", agent=look_up)
    assert result.findings.certified == (1,)
    assert result.findings.top == 1
