"""This process's environment is the agent's own again after a program was started with it."""

from __future__ import annotations

import os

import pytest

from tracefork_otel.seam.lending import Lending


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """One variable that is set, and one that is not."""
    monkeypatch.setenv("LENT_SET", "before")
    monkeypatch.setenv("LENT_NEW", "")
    monkeypatch.delenv("LENT_NEW")


def test_what_the_agent_sets_meanwhile_stays() -> None:
    """Only where our value still stands is the one before it put back."""
    with Lending().of(lambda: {"LENT_SET": "ours", "LENT_NEW": "ours"}):
        assert (os.environ["LENT_SET"], os.environ["LENT_NEW"]) == ("ours", "ours")
        os.environ["LENT_SET"] = "theirs"
    assert os.environ["LENT_SET"] == "theirs"
    assert "LENT_NEW" not in os.environ


def test_what_the_agent_takes_away_meanwhile_is_away() -> None:
    """Nothing comes back that it removed."""
    with Lending().of(lambda: {"LENT_SET": "ours"}):
        del os.environ["LENT_SET"]
    assert "LENT_SET" not in os.environ


def test_overlapping_starts_take_nothing_from_each_other() -> None:
    """The first to end leaves the second what it needs; after both all is as before."""
    lending = Lending()
    first = lending.of(lambda: {"LENT_SET": "ours", "LENT_NEW": "ours"})
    second = lending.of(dict)  # it finds nothing missing
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert (os.environ["LENT_SET"], os.environ["LENT_NEW"]) == ("ours", "ours")
    second.__exit__(None, None, None)
    assert os.environ["LENT_SET"] == "before"
    assert "LENT_NEW" not in os.environ
