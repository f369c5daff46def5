"""Whether a model can be asked in the form, and at the host, of a recorded request."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from tracefork_otel.errors import UsageError
from tracefork_otel.wire.registry import host_of, place, placed, price_name, recognise

if TYPE_CHECKING:
    from tracefork_otel.tape.tape import Tape

_NAMED = 4
"""How many models are named as possible."""


def check_model(tape: Tape, step: int, model: str) -> None:
    """Raise UsageError for a model of another maker than the one whose form and host the request has.

    A server that answered for another maker's model in the recorded run is a gateway, which may know it.
    """
    from ...store.price_list import maker_of, models_of

    request = tape.exchanges[step].request
    call = recognise(request.method, request.url, request.body)
    if call is None:
        return
    host, path = place(request.url)
    known, found = host_of(host) is not None, placed(path, request.method.upper())
    if not known and found is not None and found[0].spoken_by_all:
        return
    home, maker = price_name(call.provider), maker_of(model)
    possible = models_of(home)
    if maker in (None, home) or not possible or maker_of(possible[0]) != home:
        return
    others = {recognise(one.request.method, one.request.url, one.request.body) for one in tape.exchanges}
    used = {one.model for one in others if one is not None and one.form == call.form and one.model}
    if any(maker_of(one) not in (None, home) for one in used):
        return
    near = get_close_matches(next(iter(sorted(used)), home), possible, n=_NAMED, cutoff=0)
    listed = ", ".join(dict.fromkeys([*sorted(used), *near]))
    raise UsageError(
        f"{model} is a model of {maker}, and this request is in the form of {home}"
        + (f" and goes to {host}" if known else "")
        + f": possible are models of {home}, such as {listed}; if a gateway there takes it all the same, "
        f"--set model={model}"
    )
