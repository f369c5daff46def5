"""A comparison as lines for a person."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby

from ..spelling import at_least, counted, named, outcome_word, run_name, short
from .compare import Comparison, Side

_CHANGES = 4
"""Changes of a step that are printed; the others are counted."""
_NAMES = 4
_VALUE = 120
_ENDING = 200
_SIGNS = {"same": "=", "changed": "~", "added": "+", "gone": "-"}


def lines(found: Comparison) -> tuple[str, ...]:
    """Return the two runs, each step or stretch of equal steps, and what it comes to, as lines."""
    return (
        *(f"{sign} {_side(side)}" for sign, side in (("a", found.a), ("b", found.b))),
        "",
        *_steps(found),
        "",
        *_summary(found),
    )


def _side(side: Side) -> str:
    parts = [run_name(side.run_id), named(side.name), counted(side.steps, "step")]
    if side.input_tokens is not None:
        parts.append(f"{side.input_tokens} in, {side.output_tokens or 0} out")
    if side.cost_usd is not None:
        parts.append(at_least(side.cost_usd, side.unpriced))
    return "  ".join(filter(None, [*parts, outcome_word(side.outcome, side.status or "")]))


def _steps(found: Comparison) -> Iterator[str]:
    """Yield each step that differs, and between them the stretches of those that do not."""
    for same, group in groupby(enumerate(found.steps), key=lambda one: not one[1].differs):
        stretch = list(group)
        if not same:
            for index, _ in stretch:
                yield from _different(found, index)
            continue
        (_, first), (_, last) = stretch[0], stretch[-1]
        if len(stretch) == 1:
            yield f"= {first.name}  {first.what_a}"
        else:
            yield f"= {first.name} to {last.name}  {len(stretch)} steps, the same"


def _different(found: Comparison, index: int) -> Iterator[str]:
    step = found.steps[index]
    marks: list[str] = []
    if index == found.first:
        marks.append("the first difference")
    if step.intervention:
        marks.append(f"edited: {step.intervention}")
    if step.follows:
        marks.append(f"carries {_named(found, step.follows)}")
    what = step.what_b or step.what_a
    if step.kind == "changed":
        what = " ⇒ ".join(dict.fromkeys((step.brief_a or "", step.brief_b or "")))
    yield f"{_SIGNS[step.kind]} {step.name}  {what}" + (f"  ({'; '.join(marks)})" if marks else "")
    shown = list(step.changes)
    if step.follows:  # of a request that carries earlier differences a person needs only what is new
        shown = [*step.news, *(change for change in step.changes if change.where == "response")]
    for change in shown[:_CHANGES]:
        a, b = (short(value, _VALUE) or '""' for value in (change.a, change.b))
        yield f"    {change.where} {change.path}: {a} → {b}"
    more = len(shown) - _CHANGES if step.follows else step.differences - min(len(shown), _CHANGES)
    if more > 0:
        yield f"    and {more} more"


def _named(found: Comparison, indexes: Sequence[int]) -> str:
    names = [found.steps[index].name for index in indexes]
    if len(names) == 1:
        return f"step {names[0]}"
    if len(names) > 2 and indexes[-1] - indexes[0] == len(indexes) - 1:
        return f"steps {names[0]} to {names[-1]}"
    return f"steps {', '.join(names[:_NAMES])}{f' … {names[-1]}' if len(names) > _NAMES else ''}"


def _summary(found: Comparison) -> Iterator[str]:
    counts = [f"{count} {kind}" for kind in _SIGNS if (count := found.count(kind))]  # type: ignore[arg-type]
    first = found.first
    if first is None:
        yield f"{', '.join(counts) or 'no steps'}: nothing differs, the runs are the same"
    else:
        chain = found.chain
        alone = [
            index
            for index, step in enumerate(found.steps)
            if step.differs and index != first and index not in chain
        ]
        text = f"{', '.join(counts)}; the first difference is step {found.steps[first].name}"
        if chain:
            text += f", and {_named(found, chain)} follow{'s' if len(chain) == 1 else ''} from it"
        if edited := [index for index in alone if found.steps[index].intervention]:
            text += f"; {_named(found, edited)} {'is' if len(edited) == 1 else 'are'} changed by the fork too"
        if other := [index for index in alone if index not in edited]:
            text += f"; {_named(found, other)} differ{'s' if len(other) == 1 else ''} for another reason"
        yield text
    if (found.a.last_text, found.a.exit_status) != (found.b.last_text, found.b.exit_status):
        for sign, side in (("a", found.a), ("b", found.b)):
            status = "" if side.exit_status is None else f"  (exit status {side.exit_status})"
            yield f"{sign} ends  {json.dumps(short(side.last_text, _ENDING), ensure_ascii=False)}{status}"
    if found.a.cost_usd is not None and found.b.cost_usd is not None:
        a, b = (at_least(side.cost_usd, side.unpriced) for side in (found.a, found.b))
        yield f"cost    {a} → {b}"
