-- The backend's own queries; each begins with a line that names it. Parameters are named.

-- :parse
SELECT json_serialize_sql($query)
-- :columns_of_files
-- The columns themselves come before what is nested in lists of others, which may have the same names.
SELECT file_name, list(name ORDER BY column_id DESC), list(replace(duckdb_type, '"', '') ORDER BY column_id DESC)
FROM parquet_schema($files) GROUP BY file_name
-- :read_all
SELECT bit_xor(hash(everything)) FROM read_parquet($file) AS everything
-- :settings
SET GLOBAL parquet_metadata_cache = true; SET GLOBAL TimeZone = 'UTC'
-- :set_store
SET VARIABLE tracefork_store = $store
-- :set_segments
SET VARIABLE tracefork_segments = $segments::STRUCT(id VARCHAR, facts INTEGER, spanless BOOLEAN)[]
-- :get_scans
SELECT getvariable('tracefork_scans')
-- :set_scans
SET VARIABLE tracefork_scans = $scans
-- :has_senders
SELECT process_id FROM _senders LIMIT 1
-- :get_beside
SELECT writer FROM _beside
-- :set_beside
SET VARIABLE tracefork_beside = $beside::VARCHAR[]
-- :fill_twice
INSERT INTO _twice FROM _told_below
-- :get_twice
SELECT trace_id || ' ' || span_id FROM _twice
-- :beside_run
SELECT count(*) FILTER (WHERE call) AS calls, count(*) FILTER (WHERE NOT call) AS spans
FROM (
    SELECT process_id, trace_id, true AS call FROM _all_exchanges
    UNION ALL
    SELECT process_id, trace_id, false FROM _spans WHERE kind NOT IN ('process', 'note')
)
WHERE trace_id = $run_id AND NOT _is_of_run(process_id, trace_id)
-- :fill
INSERT INTO _live_{table} BY NAME SELECT $origin AS filename, * FROM arriving
-- :forget_facts
DELETE FROM _live_facts WHERE trace_id IN (SELECT unnest($trace_ids::VARCHAR[]))
-- :fill_processes
INSERT INTO _live_processes SELECT unnest($processes::VARCHAR[])
-- :read_only
BEGIN TRANSACTION READ ONLY
-- :run_by_prefix
SELECT * FROM runs WHERE run_id >= $prefix AND run_id < $prefix || 'g' ORDER BY run_id LIMIT 5
-- :run_by_further_trace
SELECT *
FROM runs
WHERE run_id IN (SELECT run_id FROM _further WHERE trace_id >= $prefix AND trace_id < $prefix || 'g')
ORDER BY run_id
LIMIT 5
-- :run_by_id
SELECT * FROM runs WHERE run_id = $run_id
-- :run_back
SELECT * FROM runs WHERE kind IN ('record', 'fork') ORDER BY started_at DESC, run_id LIMIT 1 OFFSET $back
-- :runs
SELECT * FROM runs ORDER BY started_at DESC, run_id LIMIT $limit
-- :runs_of_kind
SELECT * FROM runs WHERE kind = $kind ORDER BY started_at DESC, run_id LIMIT $limit
-- :runs_listed
SELECT
    run_id, name, service, kind, started_at, duration_ms, steps, input_tokens, output_tokens, cost_usd, status, outcome,
    complete, parent_run_id, fork_step, session_id, conversation_id, unpriced,
    run_id IN (SELECT trace_id FROM _missing WHERE unseen) AS unseen
FROM runs
WHERE
    ($every OR kind IN ('record', 'fork'))
    AND ($kind IS NULL OR kind = $kind)
    AND ($status IS NULL OR status = $status)
    AND ($outcome IS NULL OR coalesce(outcome::VARCHAR, 'null') = $outcome)
    AND ($since IS NULL OR started_at >= $since::TIMESTAMP)
    AND ($before IS NULL OR started_at < $before::TIMESTAMP)
    AND ($text IS NULL OR contains(lower(concat_ws(' ', name, service, command, entrypoint, run_id)), lower($text)))
    AND (
        $model IS NULL
        OR run_id IN (SELECT e.run_id FROM exchanges e WHERE contains(lower(e.model), lower($model)))
    )
ORDER BY started_at DESC, run_id
LIMIT $limit OFFSET $offset
-- :steps_of_run
SELECT
    step, span_id, started_at, duration_ms, ttfb_ms, method, url, provider, operation, model, status_code, outcome,
    streamed, input_tokens, output_tokens, cached_tokens, cost_usd, replayed, intervention, cost_reason, site
FROM exchanges
WHERE run_id = $run_id
ORDER BY step
-- :replies_of_run
-- The last messages of each step, by which its answer is told in a few words; the numbers of a row are pairs of first and last.
SELECT e.step, s.no, s.said.role AS role, s.said.kind AS kind, s.said.name AS name, left(s.said.content, $most) AS content
FROM (
    SELECT e.step, f.segment, f.messages[-2] AS first, f.messages[-1] AS last
    FROM _steps e
    JOIN (SELECT * FROM _facts WHERE trace_id = $run_id AND len(messages) > 1) f
        ON f.trace_id = e.trace_id AND f.span_id = e.span_id
    WHERE e.trace_id = $run_id
) e
JOIN (
    SELECT segment, first_no + generate_subscripts(said, 1) - 1 AS no, unnest(said) AS said
    FROM _facts
    WHERE trace_id = $run_id AND len(said) > 0
) s ON s.segment = e.segment AND s.no BETWEEN greatest(e.first, e.last - 3) AND e.last
ORDER BY e.step, s.no
-- :own_spans_of_run
SELECT span_id, parent_span_id, name, kind, started_ns, ended_ns, status, status_message, service, scope, attributes
FROM _spans
WHERE kind NOT IN ('process', 'note') AND (trace_id = $run_id OR trace_id IN (
    SELECT span_trace_id FROM _exchanges WHERE trace_id = $run_id AND span_trace_id IS NOT NULL))
ORDER BY started_ns, span_id
LIMIT $limit
-- :draws_of_run
SELECT position, source, site, value FROM draws WHERE run_id = $run_id ORDER BY position LIMIT $limit
-- :forks_of_run
SELECT f.*, r.kind, r.name, r.status, r.steps, r.experiment_id
FROM forks f
JOIN runs r USING (run_id)
WHERE f.parent_run_id = $run_id
ORDER BY f.step, f.created_at, f.run_id
-- :forks_below
WITH RECURSIVE below AS (
    SELECT run_id FROM forks WHERE parent_run_id = $run_id
    UNION
    SELECT f.run_id FROM forks f JOIN below b ON f.parent_run_id = b.run_id
)
SELECT f.*, r.kind, r.name, r.status, r.steps, r.experiment_id
FROM forks f
JOIN below USING (run_id)
JOIN runs r USING (run_id)
ORDER BY f.created_at, f.run_id
-- :marks_of_runs
SELECT
    r.run_id,
    (SELECT count(*) FROM forks f WHERE f.parent_run_id = r.run_id) AS forks,
    (SELECT count(*) FROM blame_experiments b WHERE b.run_id = r.run_id) AS experiments
FROM (SELECT unnest($run_ids::VARCHAR[]) AS run_id) r
-- :experiments_of_run
SELECT * FROM blame_experiments WHERE run_id = $run_id ORDER BY created_at DESC
-- :blame_of_experiment
SELECT * FROM blame WHERE experiment_id = $id ORDER BY rank
-- :cells_of_forks
SELECT
    f.parent_run_id, f.step, f.intervention, count(*) AS forks,
    count(*) FILTER (f.outcome) AS passed, count(*) FILTER (NOT f.outcome) AS failed,
    sum(f.cost_usd) AS cost_usd, sum(f.unpriced)::BIGINT AS unpriced, max(f.created_at) AS newest
FROM forks f
JOIN runs r USING (run_id)
WHERE r.kind = 'fork' AND ($run_id IS NULL OR f.parent_run_id = $run_id)
GROUP BY ALL
ORDER BY newest DESC, f.parent_run_id, f.step, f.intervention
LIMIT $limit
-- :run_ids
SELECT DISTINCT trace_id FROM _exchanges
-- :has_run
SELECT count(*) > 0 FROM _exchanges WHERE trace_id = $run_id
-- :segments_of_runs
SELECT DISTINCT segment FROM _exchanges WHERE trace_id IN (SELECT unnest($run_ids::VARCHAR[])) AND segment IS NOT NULL
-- :heads_of_run
SELECT h.attributes
FROM _heads h
WHERE h.trace_id = $run_id AND h.attributes LIKE '%"tracefork.%'
ORDER BY h.parent_span_id IS NOT NULL, h.started_ns
LIMIT 1000
-- :forks_without_calls
SELECT trace_id AS run_id, attributes
FROM _heads
WHERE trace_id >= $prefix AND trace_id < $prefix || 'g' AND parent_span_id IS NULL
    AND attributes LIKE '%"tracefork.fork.step"%' AND trace_id NOT IN (SELECT trace_id FROM _exchanges)
ORDER BY trace_id
LIMIT 1
-- :root_of_run
SELECT span_id FROM _heads WHERE trace_id = $run_id ORDER BY parent_span_id IS NOT NULL, started_ns LIMIT 1
-- :extent
SELECT
    (SELECT coalesce(list(DISTINCT status), []) FROM runs WHERE list_contains($run_ids::VARCHAR[], run_id)) AS statuses,
    (SELECT max(coalesce(ended_ns, started_ns)) FROM _exchanges WHERE list_contains($run_ids::VARCHAR[], trace_id)) AS last_ns,
    (SELECT max(ended_ns) FROM _heads
     WHERE trace_id = $launch_id AND attributes LIKE '%"tracefork.command"%') AS command_ended_ns,
    (SELECT count(*) > 0 FROM _live_processes l
     JOIN (SELECT DISTINCT process_id FROM _spans WHERE kind = 'process' AND trace_id = $launch_id) p
         ON p.process_id = l.process_id) AS at_work,
    (SELECT count(*) > 0 FROM _heads
     WHERE (list_contains($run_ids::VARCHAR[], trace_id) OR (process_id, trace_id) IN (
             SELECT (process_id, trace_id) FROM _further WHERE list_contains($run_ids::VARCHAR[], run_id)))
         AND (_attribute(attributes, 'exception.type') = 'KeyboardInterrupt' OR status_message LIKE 'KeyboardInterrupt%')) AS interrupted
-- :removable
SELECT r.run_id, r.name, r.kind, r.started_at, r.steps, r.status, e.bytes
FROM runs r
JOIN (
    SELECT trace_id, sum(request_length + coalesce(response_length, 0))::BIGINT AS bytes FROM _exchanges GROUP BY trace_id
) e ON e.trace_id = r.run_id
WHERE list_contains($run_ids::VARCHAR[], r.run_id)
ORDER BY r.started_at, r.run_id
-- :other_traces_of_runs
SELECT DISTINCT span_trace_id AS trace_id
FROM _exchanges
WHERE span_trace_id IS NOT NULL AND list_contains($run_ids::VARCHAR[], trace_id)
    -- A server that was called within such a trace may have recorded a run of that id.
    AND span_trace_id NOT IN (SELECT trace_id FROM _exchanges)
-- :made_of_runs
WITH RECURSIVE made AS (
    SELECT run_id FROM runs WHERE list_contains($run_ids::VARCHAR[], parent_run_id)
    UNION
    SELECT r.run_id FROM runs r JOIN made ON r.parent_run_id = made.run_id
)
SELECT run_id FROM made WHERE NOT list_contains($run_ids::VARCHAR[], run_id)
-- :experiments_of_runs
SELECT trace_id, coalesce(json_extract_string(row, '$.experiment_id'), json_extract_string(row, '$.repair_id')) AS experiment_id
FROM (
    SELECT
        trace_id,
        coalesce(_attribute(attributes, 'tracefork.blame.experiment'), _attribute(attributes, 'tracefork.repair.search')) AS row
    FROM _spans
    WHERE attributes LIKE '%"tracefork.blame.experiment"%' OR attributes LIKE '%"tracefork.repair.search"%'
)
WHERE list_contains($run_ids::VARCHAR[], json_extract_string(row, '$.run_id'))
-- :repair_searches
SELECT unnest(json_transform(row, '{"repair_id": "VARCHAR", "run_id": "VARCHAR",
    "verdict": "VARCHAR", "message": "VARCHAR", "oracle_name": "VARCHAR", "budget_usd": "DOUBLE", "spent_usd": "DOUBLE",
    "unpriced": "BIGINT", "forks": "BIGINT", "stop_reason": "VARCHAR", "left": ["VARCHAR"], "proposing_usd": "DOUBLE"}'))
FROM (SELECT row FROM _repair_roots ORDER BY ended_ns, trace_id)
-- :repair_candidates
SELECT r.*, x.without, x.answers, x.ends
FROM repairs r
LEFT JOIN (
    SELECT unnest(json_transform(_attribute(attributes, 'tracefork.repair.candidate'),
        '{"repair_id": "VARCHAR", "rank": "INTEGER", "without": "VARCHAR", "answers": "BOOLEAN", "ends": "BOOLEAN"}'))
    FROM _spans
    JOIN _repair_roots USING (trace_id)
    WHERE attributes LIKE '%"tracefork.repair.candidate"%'
) x ON x.repair_id = r.repair_id AND x.rank = r.rank
WHERE r.repair_id = $id
ORDER BY r.rank
-- :beside_runs
SELECT DISTINCT e.trace_id AS run_id
FROM _exchanges e
JOIN (SELECT process_id, trace_id FROM _spans WHERE kind = 'process' AND trace_id <> '') p ON p.process_id = e.process_id
WHERE NOT list_contains($run_ids::VARCHAR[], e.trace_id) AND p.trace_id IN (
    SELECT q.trace_id
    FROM (SELECT process_id, trace_id FROM _spans WHERE kind = 'process' AND trace_id <> '') q
    JOIN _exchanges g ON g.process_id = q.process_id
    WHERE list_contains($run_ids::VARCHAR[], g.trace_id)
)
-- :launches_of_runs_alone
SELECT p.trace_id
FROM (SELECT process_id, trace_id FROM _spans WHERE kind = 'process' AND trace_id <> '') p
JOIN (SELECT DISTINCT process_id, trace_id FROM _exchanges) e ON e.process_id = p.process_id
GROUP BY p.trace_id
HAVING bool_and(list_contains($run_ids::VARCHAR[], e.trace_id))
-- :processes_of_runs_alone
SELECT process_id
FROM _exchanges
GROUP BY process_id
HAVING bool_and(list_contains($run_ids::VARCHAR[], trace_id))
-- :unsealed_processes
SELECT DISTINCT process_id
FROM (SELECT process_id, trace_id FROM _live_exchanges UNION ALL SELECT process_id, trace_id FROM _live_spans)
WHERE list_contains($traces::VARCHAR[], trace_id)
-- :launch_of_run
SELECT DISTINCT p.trace_id
FROM (SELECT DISTINCT process_id FROM _exchanges WHERE trace_id = $run_id) e
JOIN (SELECT process_id, trace_id FROM _spans WHERE kind = 'process' AND trace_id <> '') p
    ON p.process_id = e.process_id
ORDER BY p.trace_id
-- :runs_of_launch
SELECT e.trace_id
FROM (SELECT trace_id, process_id, min(started_ns) AS started_ns FROM _exchanges GROUP BY ALL) e
JOIN (SELECT DISTINCT process_id FROM _spans WHERE kind = 'process' AND trace_id = $launch_id) p
    ON p.process_id = e.process_id
GROUP BY e.trace_id
ORDER BY min(e.started_ns), e.trace_id
-- :runs_beside
SELECT trace_id
FROM _exchanges
WHERE process_id IN (SELECT process_id FROM _exchanges WHERE trace_id = $run_id)
GROUP BY trace_id
ORDER BY min(started_ns), trace_id
-- :not_imported
SELECT DISTINCT trace_id
FROM (SELECT trace_id, process_id FROM _all_exchanges UNION ALL SELECT trace_id, process_id FROM _spans)
WHERE trace_id IN (SELECT unnest($ids::VARCHAR[])) AND process_id NOT IN (
    SELECT process_id FROM _spans WHERE kind = 'process' AND _attribute(attributes, 'via') = 'import')
ORDER BY trace_id
-- :came_in
SELECT count(*) > 0
FROM _exchanges
JOIN _senders USING (process_id)
WHERE trace_id IN (SELECT unnest($run_ids::VARCHAR[])) AND rank = 2
-- :notes_of_run
SELECT n.*
FROM (SELECT * FROM _spans WHERE kind = 'note') n
WHERE n.trace_id = $run_id
    OR (n.trace_id = '' AND n.process_id IN (SELECT process_id FROM _exchanges WHERE trace_id = $run_id))
    OR (n.name IN ('lost', 'incomplete', 'unseen') AND n.trace_id IN (
        SELECT launch_id FROM _launches WHERE trace_id = $run_id))
ORDER BY n.started_ns
-- :open_steps_of_run
SELECT step
FROM exchanges
WHERE run_id = $run_id AND outcome = 'in_flight'
ORDER BY step
-- :draws_of_launch
SELECT n.*
FROM (SELECT * FROM _spans WHERE kind = 'note' AND name = 'draws') n
WHERE n.process_id IN (SELECT process_id FROM _spans WHERE kind = 'process' AND trace_id = $launch_id)
ORDER BY n.started_ns
-- :tools_of_runs
SELECT *
FROM _spans
WHERE starts_with(name, 'execute_tool ') AND scope = 'tracefork_otel' AND kind NOT IN ('process', 'note')
    AND _is_of_run(process_id, trace_id)
    AND (trace_id IN (SELECT unnest($run_ids::VARCHAR[])) OR process_id IN (
        SELECT process_id FROM _spans WHERE kind = 'process' AND trace_id = $launch_id) OR (process_id, trace_id) IN (
        SELECT (process_id, trace_id) FROM _further WHERE run_id IN (SELECT unnest($run_ids::VARCHAR[]))))
ORDER BY started_ns
-- :spans_of_traces
SELECT *
FROM _spans
WHERE list_contains($traces::VARCHAR[], trace_id) AND kind NOT IN ('process', 'note')
ORDER BY NOT _is_of_run(process_id, trace_id), started_ns, span_id
-- :providers_of_launch
SELECT count(*) > 0 AS there
FROM _spans
WHERE kind = 'note' AND name = 'provider'
    AND process_id IN (SELECT process_id FROM _spans WHERE kind = 'process' AND trace_id = $launch_id)
-- :losses
SELECT coalesce(sum(coalesce(TRY_CAST(json_extract_string(attributes, '$.count') AS BIGINT), 1)), 0)
FROM _spans
WHERE kind = 'note' AND name = 'lost'
-- :states
SELECT DISTINCT trace_id, unnest([_attribute(attributes, 'tracefork.state'), _attribute(attributes, 'tracefork.call.state')]) AS state
FROM _spans
WHERE attributes LIKE '%"tracefork.state"%' OR attributes LIKE '%"tracefork.call.state"%'
-- :totals
SELECT count(DISTINCT trace_id) AS runs, count(*) AS exchanges FROM _exchanges
-- :live_damage
SELECT span_id, damage FROM _live_exchanges WHERE damage IS NOT NULL
-- :steps_of_spans
SELECT trace_id AS run_id, step, span_id FROM _steps WHERE list_contains($spans::VARCHAR[], span_id) ORDER BY 1, 2
-- :loss_notes
SELECT * FROM _spans WHERE kind = 'note' AND name IN ('lost', 'incomplete') ORDER BY started_ns
-- :odd_notes
SELECT trace_id, process_id, attributes FROM _spans WHERE kind = 'note' AND name = 'odd' ORDER BY started_ns
-- :recorded_runs
SELECT run_id, name, status, entrypoint, command FROM runs WHERE kind IN ('record', 'fork') ORDER BY started_at, run_id
-- :blame_experiments
SELECT * FROM blame_experiments ORDER BY created_at
-- :blame_effects
SELECT * FROM blame_effects WHERE experiment_id = $id ORDER BY step
-- :blame_sets
SELECT * FROM blame_sets WHERE experiment_id = $id
-- :blame_trials
SELECT *, epoch_ns(started_at) AS started_ns, epoch_ns(ended_at) AS ended_ns
FROM blame_trials
WHERE experiment_id = $id
ORDER BY seq
-- :blame_unpriced
SELECT count(*) AS forks FROM blame_trials WHERE experiment_id = $id AND unpriced > 0
-- :trials_that_ran
SELECT run_id FROM forks f JOIN runs r USING (run_id) WHERE r.experiment_id = $id
-- :roots_of_forks
SELECT trace_id, span_id FROM spans WHERE parent_span_id IS NULL AND name LIKE 'fork %' AND attributes LIKE $named
-- :redrawn_steps
SELECT e.step
FROM blame_effects e
JOIN (SELECT experiment_id FROM blame_experiments WHERE run_id = $id AND mode <> 'parts' ORDER BY created_at DESC LIMIT 1) x USING (experiment_id)
WHERE e.rank IS NOT NULL
ORDER BY e.rank
-- :redraws
SELECT t.kept, t.status = 'flip' AS flipped, t.run_id
FROM blame_trials t
JOIN blame_experiments x USING (experiment_id)
WHERE x.run_id = $id AND x.mode <> 'parts' AND len(t.altered) = 0 AND t.status <> 'undefined'
ORDER BY x.created_at DESC, t.seq
-- :unchanged_reruns
SELECT t.kept, count(*) FILTER (t.status = 'flip')::INTEGER AS flips, count(*)::INTEGER AS trials
FROM blame_trials t
JOIN blame_experiments x USING (experiment_id)
WHERE x.run_id = $id AND x.mode <> 'parts' AND len(t.altered) = 0 AND t.status <> 'undefined'
GROUP BY t.kept
