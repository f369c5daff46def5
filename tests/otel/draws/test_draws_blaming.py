"""What a drift says of the draws that it may follow from."""

from __future__ import annotations

from tracefork_otel.draws.blaming import explained
from tracefork_otel.draws.deck import Suspect
from tracefork_otel.play.match import Explanation


def test_libraries_that_may_be_in_a_difference_are_named() -> None:
    """Where no value shows (a digest of an id was sent), those are named that drew one; else none can be."""
    differs = Explanation(step=0, path="$.id", recorded="9f2c", got="77ab", nearest=0, cause="id")
    drawn = [Suspect("library", "uuid4", "taglib<uuid", "", "0b8d3c58-5f0a", "/main")]
    advice = explained(differs, drawn).advice
    assert "a library's own may be in it (taglib drew one)" in advice
    assert "TRACEFORK_DRAWS_INCLUDE=taglib," in advice
    assert "TRACEFORK_DRAWS_INCLUDE=PACKAGE," in explained(differs, ()).advice
