"""What is kept of what a function gave back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel

from tracefork_otel.session.result import as_text


@dataclass(slots=True)
class Trip:
    """A dataclass that holds others."""

    city: str
    stops: list[Trip] = field(default_factory=list[Any])


class Booking(BaseModel):
    """A model of pydantic, with bytes in it."""

    booked: bool
    at: bytes = b"x"


class Raising:
    """What has the method of such a model, and raises there."""

    def model_dump(self, **how: object) -> object:
        """Raise."""
        raise RuntimeError("not now")

    def __repr__(self) -> str:
        return "Raising()"


def test_a_result_of_fields_is_graded_by_them() -> None:
    """A dataclass and a model of pydantic are JSON, alone and within each other's lists."""
    assert json.loads(as_text(Trip("Oslo", [Trip("Bergen")]))) == {
        "city": "Oslo",
        "stops": [{"city": "Bergen", "stops": []}],
    }
    assert json.loads(as_text([Booking(booked=True)])) == [{"booked": True, "at": "x"}]


@pytest.mark.parametrize("value", [Raising(), Trip, {1, 2}, object, [Raising()]])
def test_what_is_no_json_is_its_repr(value: object) -> None:
    """Whatever a class of the agent's raises."""
    assert as_text(value) == repr(value)
