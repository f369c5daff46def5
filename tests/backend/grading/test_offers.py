"""What is offered to grade by, where nobody has said what a success is."""

from __future__ import annotations

import pytest
from tracefork_backend.grading.graded import Graded
from tracefork_backend.grading.offers import offers

JUDGE = "--judge 'The run succeeded if the user got what was asked for.'"


@pytest.mark.parametrize(
    ("output", "status", "offered"),
    [
        ("ERROR: sold out. I am sorry.", 0, ("--failure-re ERROR", "--failure-re sorry", JUDGE)),
        ("Traceback: it failed", 1, ("--failure-re failed", "--exit-code", JUDGE)),
        ("I could not book it", None, ("--failure-re 'could not'", "--failure-re could", JUDGE)),
        ("Your flight is BOOKED.", 0, ("--success-re BOOKED", "--exit-code", JUDGE)),
        ("Quito has 2,011,388 people", None, ("--success-re 2,011,388", "--success-re Quito", JUDGE)),
        ('thinking\n{"ok": false, "why": "error"}', 0, ("--field ok=true", "--failure-re error", JUDGE)),
        ({"done": True, "sure": False}, None, ("--field done=true", "--field sure=true", JUDGE)),
        ("", 0, ("--exit-code", "--success-re .", JUDGE)),
        ("", None, ("--success-re .", JUDGE)),
    ],
)
def test_what_a_run_put_out_says_how_to_grade(
    output: object, status: int | None, offered: tuple[str, ...]
) -> None:
    """Its own words, its status where that tells, and a model at last: three at most."""
    assert offers(Graded(run_id="1", output=output, exit_status=status)) == offered


def test_what_every_run_puts_out_is_not_offered() -> None:
    """A banner tells nothing of how a run ended; where all is a banner, it is what there is."""
    ran = Graded(run_id="1", output="ACME travel 2.14. Your flight JL42 is BOOKED.", exit_status=0)
    other = "ACME travel 2.14. Your hotel is on hold."
    assert offers(ran)[0] == "--success-re ACME"
    for others in ([other], [other, "ACME travel 2.14, closed", ran.text, ""]):
        assert offers(ran, others)[:2] == ("--success-re BOOKED", "--exit-code")
    only = Graded(run_id="1", output="ACME travel", exit_status=None)
    assert offers(only, [other]) == offers(only)
    lost = Graded(run_id="1", output="ACME: ERROR, sold out", exit_status=0)
    assert offers(lost, ["ACME: ERROR, too late"])[0] == "--failure-re ERROR"
    unsure = Graded(run_id="1", output="I do not know.", exit_status=0)
    assert offers(unsure)[0] == "--failure-re 'not know'"
