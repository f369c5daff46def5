"""What the lines of an experiment's journal may be."""

from __future__ import annotations

from dataclasses import fields

from tracefork_otel import shapes

from .plan import Plan

_TEXT, _COUNT, _TIME = shapes.text(), shapes.number(), shapes.number(-(2**63))
_STEPS = shapes.many(_COUNT)
_BUDGETED = {"budget_usd": shapes.optional(shapes.amount)}
_PLANNED = {"max_trials": shapes.optional(_COUNT)}
LISTED = shapes.many(shapes.anything)
FORMATTED = shapes.record({"format": _TEXT})
HEADER = shapes.record(
    {
        "experiment_id": _TEXT,
        "run_id": _TEXT,
        "change": _TEXT,
        "oracle": _TEXT,
        "tape_sha256": _TEXT,
        "parent_outcome": shapes.boolean,
        "created_ns": _TIME,
        "plan": shapes.record(_PLANNED, {field.name: shapes.anything for field in fields(Plan)}),
        "settings": shapes.named(shapes.anything),
        **_BUDGETED,
    },
    {
        "coupling": _TEXT,
        "mark": _TEXT,
        "oracle_sha256": shapes.optional(_TEXT),
        "oracle_modules": shapes.named(_TEXT),
    },
)
LIMITS = shapes.record({}, {"limits": shapes.record({**_BUDGETED, **_PLANNED})})
TRIAL = shapes.record(
    {
        **dict.fromkeys(("trial_id", "arm_id", "role", "phase", "run_id", "status", "tail_sha256"), _TEXT),
        **dict.fromkeys(("kept", "replicate", "seq", "calls_live"), _COUNT),
        "steps": _STEPS,
        "altered": _STEPS,
        "undefined_reason": shapes.optional(_TEXT),
        "outcome": shapes.optional(shapes.boolean),
        "cost_usd": shapes.optional(shapes.amount),
        "started_ns": _TIME,
        "ended_ns": _TIME,
    },
    {
        "calls_memo": _COUNT,
        "unpriced": shapes.optional(_COUNT),
        **dict.fromkeys(("grading_usd", "booked_usd"), shapes.optional(shapes.amount)),
    },
)
_FLAGS = shapes.named(shapes.plain)
SETTINGS = shapes.record(
    {
        "oracle": _FLAGS,
        "change": _FLAGS,
        "how": shapes.record(
            {},
            {
                **dict.fromkeys(("mode", "coupling", "match", "timing"), _TEXT),
                **dict.fromkeys(("ignore", "allow_hosts", "skip_hosts", "price"), shapes.many(_TEXT)),
                **dict.fromkeys(("alpha", "timeout", "bound"), shapes.optional(shapes.amount)),
                **dict.fromkeys(("k", "max_trials"), shapes.optional(_COUNT)),
                "agent": shapes.optional(_TEXT),
                "every": shapes.boolean,
                **dict.fromkeys(("runs", "over"), shapes.many(_TEXT)),
            },
        ),
    }
)
