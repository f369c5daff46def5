-- Blame: an experiment's trace holds its rows as spans. One that was resumed wrote them again: the last count.
CREATE OR REPLACE VIEW _blame_roots AS
SELECT trace_id, _attribute(attributes, 'tracefork.blame.experiment') AS row
FROM _spans
WHERE attributes LIKE '%"tracefork.blame.experiment"%'
QUALIFY row_number() OVER (
    PARTITION BY _attribute(attributes, 'tracefork.experiment.id')
    ORDER BY
        TRY_CAST(json_extract_string(_attribute(attributes, 'tracefork.blame.experiment'), '$.forks') AS BIGINT) DESC,
        ended_ns DESC, trace_id
) = 1;

CREATE OR REPLACE VIEW _repair_roots AS
SELECT trace_id, ended_ns, _attribute(attributes, 'tracefork.repair.search') AS row
FROM _spans
WHERE attributes LIKE '%"tracefork.repair.search"%'
QUALIFY row_number() OVER (
    PARTITION BY _attribute(attributes, 'tracefork.experiment.id')
    ORDER BY
        TRY_CAST(json_extract_string(_attribute(attributes, 'tracefork.repair.search'), '$.forks') AS BIGINT) DESC,
        ended_ns DESC, trace_id
) = 1;

CREATE OR REPLACE VIEW _blame_rows AS
SELECT
    _attribute(s.attributes, 'tracefork.blame.arm') AS arm,
    _attribute(s.attributes, 'tracefork.blame.trial') AS trial,
    _attribute(s.attributes, 'tracefork.blame.effect') AS effect,
    _attribute(s.attributes, 'tracefork.blame.set') AS joint
FROM _spans s
JOIN (SELECT trace_id FROM _blame_roots UNION ALL SELECT trace_id FROM _repair_roots) r ON r.trace_id = s.trace_id
WHERE s.attributes LIKE '%"tracefork.blame.%';

CREATE OR REPLACE VIEW blame_experiments AS
SELECT
    x.* EXCLUDE (created_ns, unpriced, grading_unpriced, lost_usd, lost_unpriced), _at(x.created_ns) AS created_at,
    coalesce(x.unpriced, 0) AS unpriced, coalesce(x.grading_unpriced, 0) AS grading_unpriced,
    coalesce(x.lost_usd, 0) AS lost_usd, coalesce(x.lost_unpriced, 0) AS lost_unpriced
FROM (
    SELECT unnest(json_transform(row, '{"experiment_id": "VARCHAR", "run_id": "VARCHAR", "tape_sha256": "VARCHAR",
        "created_ns": "BIGINT", "n_steps": "INTEGER", "parent_outcome": "BOOLEAN", "mode": "VARCHAR",
        "perturbation": "VARCHAR", "coupling": "VARCHAR", "oracle_name": "VARCHAR", "alpha": "DOUBLE",
        "multiplicity": "VARCHAR", "params_json": "VARCHAR", "budget_usd": "DOUBLE", "spent_usd": "DOUBLE",
        "forks": "INTEGER", "controls": "INTEGER", "stop_reason": "VARCHAR", "baseline_flips": "INTEGER",
        "baseline_trials": "INTEGER", "deterministic": "BOOLEAN", "top_step": "INTEGER", "message": "VARCHAR",
        "oracle_note": "VARCHAR", "grading_usd": "DOUBLE", "unpriced": "INTEGER", "grading_unpriced": "INTEGER",
        "lost_usd": "DOUBLE", "lost_unpriced": "INTEGER"}'))
    FROM _blame_roots
) x;

CREATE OR REPLACE VIEW blame_arms AS
SELECT unnest(json_transform(arm, '{"experiment_id": "VARCHAR", "arm_id": "VARCHAR", "role": "VARCHAR",
    "start_step": "INTEGER", "steps": ["INTEGER"], "altered": ["INTEGER"], "trials": "INTEGER", "flips": "INTEGER",
    "undefined": "INTEGER"}'))
FROM _blame_rows WHERE arm IS NOT NULL;

CREATE OR REPLACE VIEW blame_trials AS
SELECT
    x.* EXCLUDE (started_ns, ended_ns, unpriced), _at(x.started_ns) AS started_at, _at(x.ended_ns) AS ended_at,
    coalesce(x.unpriced, CAST(x.calls_live > 0 AND x.cost_usd IS NULL AS INTEGER)) AS unpriced
FROM (
    SELECT unnest(json_transform(trial, '{"experiment_id": "VARCHAR", "trial_id": "VARCHAR", "arm_id": "VARCHAR",
        "role": "VARCHAR", "steps": ["INTEGER"], "altered": ["INTEGER"], "kept": "INTEGER", "replicate": "INTEGER",
        "phase": "VARCHAR", "seq": "INTEGER", "run_id": "VARCHAR", "status": "VARCHAR",
        "undefined_reason": "VARCHAR", "outcome": "BOOLEAN", "tail_sha256": "VARCHAR", "calls_live": "INTEGER",
        "calls_memo": "INTEGER", "cost_usd": "DOUBLE", "started_ns": "BIGINT", "ended_ns": "BIGINT",
        "unpriced": "INTEGER"}'))
    FROM _blame_rows WHERE trial IS NOT NULL
) x;

CREATE OR REPLACE VIEW blame_effects AS
SELECT unnest(json_transform(effect, '{"experiment_id": "VARCHAR", "run_id": "VARCHAR", "rank": "INTEGER",
    "step": "INTEGER", "verdict": "VARCHAR", "reason": "VARCHAR", "flip_rate": "DOUBLE", "control_rate": "DOUBLE",
    "effect": "DOUBLE", "ci_low": "DOUBLE", "ci_high": "DOUBLE", "ci_kind": "VARCHAR", "bound_low": "DOUBLE",
    "bound_high": "DOUBLE", "log_e": "DOUBLE", "e_value": "DOUBLE", "q_value": "DOUBLE", "pairs": "INTEGER",
    "n_treatment": "INTEGER", "flips_treatment": "INTEGER", "undefined_treatment": "INTEGER", "n_control": "INTEGER",
    "flips_control": "INTEGER", "undefined_control": "INTEGER", "is_root": "BOOLEAN", "echo_of": "INTEGER",
    "forks": "INTEGER", "cost_usd": "DOUBLE", "model": "VARCHAR", "tool": "VARCHAR", "preview": "VARCHAR",
    "part": "VARCHAR", "tokens": "INTEGER"}'))
FROM _blame_rows WHERE effect IS NOT NULL;

CREATE OR REPLACE VIEW blame_sets AS
SELECT unnest(json_transform(joint, '{"experiment_id": "VARCHAR", "set_id": "VARCHAR", "steps": ["INTEGER"],
    "kind": "VARCHAR", "verdict": "VARCHAR", "reason": "VARCHAR", "flip_rate": "DOUBLE", "log_e_min": "DOUBLE",
    "n_trials": "INTEGER", "effect": "DOUBLE", "ci_low": "DOUBLE", "ci_high": "DOUBLE"}'))
FROM _blame_rows WHERE joint IS NOT NULL;

-- The steps that have something to say, the most to blame first.
CREATE OR REPLACE VIEW blame AS
SELECT
    experiment_id, run_id, rank, step, verdict, effect, ci_low, ci_high, flip_rate, control_rate, e_value, q_value,
    is_root, n_treatment AS trials, n_control AS controls, cost_usd, model, preview, part, tokens
FROM blame_effects
WHERE rank IS NOT NULL
ORDER BY experiment_id, rank;

-- The candidates of searches for repairs, in the order in which they were tried.
CREATE OR REPLACE VIEW repairs AS
SELECT x.* EXCLUDE (created_ns), _at(x.created_ns) AS created_at
FROM (
    SELECT unnest(json_transform(_attribute(s.attributes, 'tracefork.repair.candidate'), '{"repair_id": "VARCHAR",
        "run_id": "VARCHAR", "rank": "INTEGER", "step": "INTEGER", "source": "VARCHAR", "verdict": "VARCHAR",
        "reason": "VARCHAR", "change": "VARCHAR", "edit": "VARCHAR", "parts": "INTEGER", "parts_tried": "INTEGER",
        "minimal": "BOOLEAN", "effect": "DOUBLE", "ci_low": "DOUBLE", "ci_high": "DOUBLE", "e_value": "DOUBLE",
        "pairs": "INTEGER", "n_treatment": "INTEGER", "flips_treatment": "INTEGER", "undefined_treatment": "INTEGER",
        "n_control": "INTEGER", "flips_control": "INTEGER", "undefined_control": "INTEGER", "forks": "INTEGER",
        "cost_usd": "DOUBLE", "created_ns": "BIGINT"}'))
    FROM _spans s
    JOIN _repair_roots r ON r.trace_id = s.trace_id
    WHERE s.attributes LIKE '%"tracefork.repair.candidate"%'
) x
ORDER BY x.repair_id, x.rank;
