-- The backend's own queries; each begins with a line that names it. Parameters are named.

-- :parse
SELECT json_serialize_sql($query)
-- :columns_of_files
SELECT file_name, list(name) FROM parquet_schema($files) GROUP BY file_name
-- :read_all
SELECT bit_xor(hash(everything)) FROM read_parquet($file) AS everything
-- :settings
SET parquet_metadata_cache = true; SET GLOBAL TimeZone = 'UTC'
-- :set_store
SET VARIABLE tracefork_store = $store
-- :set_segments
SET VARIABLE tracefork_segments = $segments::STRUCT(id VARCHAR, facts INTEGER)[]
-- :get_scans
SELECT getvariable('tracefork_scans')
-- :set_scans
SET VARIABLE tracefork_scans = $scans
-- :fill
INSERT INTO _live_{table} BY NAME SELECT $origin AS filename, * FROM arriving
-- :fill_processes
INSERT INTO _live_processes SELECT unnest($processes::VARCHAR[])
-- :read_only
BEGIN TRANSACTION READ ONLY
-- :run_by_prefix
SELECT * FROM runs WHERE run_id >= $prefix AND run_id < $prefix || 'g' ORDER BY run_id LIMIT 5
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
    complete, parent_run_id, fork_step
FROM runs
WHERE $every OR kind IN ('record', 'fork')
ORDER BY started_at DESC, run_id
LIMIT $limit
-- :steps_of_run
SELECT
    step, span_id, started_at, duration_ms, ttfb_ms, method, url, provider, operation, model, status_code, outcome,
    streamed, input_tokens, output_tokens, cached_tokens, cost_usd, replayed, intervention
FROM exchanges
WHERE run_id = $run_id
ORDER BY step
-- :has_run
SELECT count(*) > 0 FROM _exchanges WHERE trace_id = $run_id
-- :segments_of_runs
SELECT DISTINCT segment FROM _exchanges WHERE trace_id IN (SELECT unnest($run_ids::VARCHAR[])) AND segment IS NOT NULL
-- :heads_of_run
SELECT h.attributes
FROM _heads h
WHERE h.trace_id = $run_id
ORDER BY h.parent_span_id IS NOT NULL, h.started_ns
-- :root_of_run
SELECT span_id FROM _heads WHERE trace_id = $run_id ORDER BY parent_span_id IS NOT NULL, started_ns LIMIT 1
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
-- :notes_of_run
SELECT n.*
FROM (SELECT * FROM _spans WHERE kind = 'note') n
WHERE n.trace_id = $run_id
    OR (n.trace_id = '' AND n.process_id IN (SELECT process_id FROM _exchanges WHERE trace_id = $run_id))
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
    AND (trace_id IN (SELECT unnest($run_ids::VARCHAR[])) OR process_id IN (
        SELECT process_id FROM _spans WHERE kind = 'process' AND trace_id = $launch_id))
ORDER BY started_ns
-- :losses
SELECT coalesce(sum(coalesce(TRY_CAST(json_extract_string(attributes, '$.count') AS BIGINT), 1)), 0)
FROM _spans
WHERE kind = 'note' AND name = 'lost'
-- :totals
SELECT count(DISTINCT trace_id) AS runs, count(*) AS exchanges FROM _exchanges
-- :live_damage
SELECT span_id, damage FROM _live_exchanges WHERE damage IS NOT NULL
-- :steps_of_spans
SELECT trace_id AS run_id, step, span_id FROM _steps WHERE list_contains($spans::VARCHAR[], span_id) ORDER BY 1, 2
-- :loss_notes
SELECT name, process_id, attributes FROM _spans WHERE kind = 'note' AND name IN ('lost', 'incomplete') ORDER BY started_ns
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
SELECT count(*) AS forks FROM blame_trials WHERE experiment_id = $id AND calls_live > 0 AND cost_usd IS NULL
-- :trials_that_ran
SELECT run_id, f.cost_usd FROM forks f JOIN runs r USING (run_id) WHERE r.experiment_id = $id
-- :roots_of_forks
SELECT trace_id, span_id FROM spans WHERE parent_span_id IS NULL AND name LIKE 'fork %' AND attributes LIKE $named
