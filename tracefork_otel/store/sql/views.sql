-- The views of a tracefork store, for any DuckDB >= 2.0:   duckdb -init .tracefork/views.sql
-- The file in a store begins with a line that sets `tracefork_store` to the store's directory.
-- Names that begin with _ are the files as they are; everything else is the contract of docs/sql.md.
-- Times are UTC TIMESTAMP, durations milliseconds, money US dollars.

SET parquet_metadata_cache = true;
SET TimeZone = 'UTC'; -- so that started_at compares with now() as it should

SET VARIABLE tracefork_segments = (
    SELECT list_filter(segments, lambda s: coalesce(s.format, 1) <= {format})
    FROM read_json(getvariable('tracefork_store') || '/MANIFEST.json',
                   columns = {segments: 'STRUCT(id VARCHAR, facts INTEGER, format INTEGER, spanless BOOLEAN)[]'}, maximum_object_size = 268435456)
);

-- >8 -- The backend's own connection begins here, with segments that it chose itself.

CREATE TABLE IF NOT EXISTS _live_exchanges (filename VARCHAR, {exchanges});
CREATE TABLE IF NOT EXISTS _live_spans (filename VARCHAR, {spans});
CREATE TABLE IF NOT EXISTS _live_chunks (filename VARCHAR, {chunks});
CREATE TABLE IF NOT EXISTS _live_facts (filename VARCHAR, {facts});
-- Processes that still write: what they have not ended is running, what others have not ended was killed.
CREATE TABLE IF NOT EXISTS _live_processes (process_id VARCHAR);

-- read_parquet() refuses an empty list, so a store without segments gets another statement.
CREATE OR REPLACE MACRO _scan(files, empty) AS CASE
    WHEN len(files) = 0 THEN 'SELECT * FROM ' || empty || ' WHERE false'
    ELSE 'SELECT * FROM read_parquet(['
        || array_to_string(list_transform(files, lambda f: '''' || replace(f, '''', '''''') || ''''), ', ')
        || '], filename = true, union_by_name = {mixed})'
END;
CREATE OR REPLACE MACRO _files(segments, ending) AS list_transform(
    segments, lambda s: getvariable('tracefork_store') || '/segments/' || s.id || ending
);
SET VARIABLE tracefork_scans = {
    exchanges: _scan(_files(getvariable('tracefork_segments'), '.exchanges.parquet'), '_live_exchanges'),
    spans: _scan(
        _files(list_filter(getvariable('tracefork_segments'), lambda s: s.spanless IS NOT true), '.spans.parquet'),
        '_live_spans'),
    chunks: _scan(_files(getvariable('tracefork_segments'), '.chunks.parquet'), '_live_chunks'),
    facts: _scan(
        _files(list_filter(getvariable('tracefork_segments'), lambda s: s.facts = {version}), '.facts.parquet'),
        '_live_facts')
};

-- A filename is worth its first part only: the segment's id, which its four files share.
CREATE OR REPLACE VIEW _all_exchanges AS
SELECT split_part(parse_filename(filename), '.', 1) AS segment, * EXCLUDE (filename)
FROM (FROM query(getvariable('tracefork_scans').exchanges) UNION ALL BY NAME FROM _live_exchanges);

CREATE OR REPLACE VIEW _spans AS
SELECT * EXCLUDE (filename)
FROM (FROM query(getvariable('tracefork_scans').spans) UNION ALL BY NAME FROM _live_spans);

CREATE OR REPLACE VIEW _chunks AS
SELECT split_part(parse_filename(filename), '.', 1) AS segment, no, text, data
FROM (FROM query(getvariable('tracefork_scans').chunks) UNION ALL BY NAME FROM _live_chunks);

-- Facts go by span, and who else says something of a trace may say it of the same span: such a run's are read anew.
CREATE OR REPLACE MACRO _is_shared(trace_id) AS
    coalesce(len(getvariable('tracefork_beside')), 0) > 0
    AND list_contains(list_transform(getvariable('tracefork_beside'), lambda w: split_part(w, ' ', 2)), trace_id);

CREATE OR REPLACE VIEW _facts AS
SELECT split_part(parse_filename(filename), '.', 1) AS segment, * EXCLUDE (filename)
FROM (
    FROM query(getvariable('tracefork_scans').facts) WHERE NOT _is_shared(trace_id) UNION ALL BY NAME FROM _live_facts
);

-- A response that the provider keeps is paid for once, however often it is fetched; who only began it, or fetched it before
-- it was done, has no price of its own once another exchange of the run has it.
CREATE OR REPLACE VIEW _paid_elsewhere AS
SELECT segment, trace_id, span_id
FROM (
    SELECT
        segment, trace_id, span_id,
        row_number() OVER (
            PARTITION BY trace_id, stored_id
            ORDER BY cost_reason IS NULL AND input_tokens IS NOT NULL DESC, input_tokens IS NOT NULL DESC, span_id
        ) AS nth
    FROM _facts
    WHERE stored_id IS NOT NULL
)
WHERE nth > 1;

CREATE OR REPLACE VIEW _billed AS
SELECT
    f.* REPLACE (
        CASE WHEN p.span_id IS NULL THEN f.input_tokens END AS input_tokens,
        CASE WHEN p.span_id IS NULL THEN f.output_tokens END AS output_tokens,
        CASE WHEN p.span_id IS NULL THEN f.cached_tokens END AS cached_tokens,
        CASE WHEN p.span_id IS NULL THEN f.cost_usd ELSE 0 END AS cost_usd,
        CASE WHEN p.span_id IS NULL THEN f.cost_reason END AS cost_reason
    )
FROM _facts f
LEFT JOIN _paid_elsewhere p ON p.trace_id = f.trace_id AND p.span_id = f.span_id AND p.segment IS NOT DISTINCT FROM f.segment;

CREATE OR REPLACE MACRO _at(ns) AS make_timestamp(ns // 1000);
CREATE OR REPLACE MACRO _ms(start_ns, end_ns) AS (end_ns - start_ns) / 1e6;
CREATE OR REPLACE MACRO _attribute(attributes, key) AS json_extract_string(attributes, '$."' || key || '"');
-- Whether a fork was told what models cost, so that its sums are its command's own.
CREATE OR REPLACE MACRO _has_prices(attributes) AS
    coalesce(attributes LIKE '%"tracefork.fork.prices"%' AND attributes LIKE '%"tracefork.fork.unpriced"%', false);

-- Processes that write down what others send: spans by OTLP (2), calls through a proxy that nobody here started (1).
CREATE OR REPLACE VIEW _senders AS
SELECT process_id, CASE via WHEN 'otlp' THEN 2 ELSE 1 END AS rank
FROM (
    SELECT process_id, trace_id, _attribute(TRY_CAST(attributes AS JSON), 'via') AS via FROM _spans WHERE kind = 'process'
)
WHERE via = 'otlp' OR (via = 'proxy' AND trace_id = '');

-- What they say of a trace whose calls somebody nearer recorded: spans of it, and neither its steps nor its start.
CREATE OR REPLACE VIEW _beside AS
SELECT DISTINCT said.process_id || ' ' || said.trace_id AS writer
FROM (
    SELECT process_id, trace_id FROM _all_exchanges
    UNION ALL
    SELECT process_id, trace_id FROM _spans WHERE kind NOT IN ('process', 'note')
) said
JOIN _senders s ON s.process_id = said.process_id
JOIN (
    SELECT e.trace_id, min(coalesce(s.rank, 0)) AS nearest
    FROM (
        SELECT process_id, trace_id FROM _all_exchanges
        UNION ALL
        SELECT process_id, span_trace_id FROM _all_exchanges WHERE span_trace_id IS NOT NULL
    ) e
    LEFT JOIN _senders s ON s.process_id = e.process_id
    GROUP BY e.trace_id
) t ON t.trace_id = said.trace_id
WHERE s.rank > t.nearest;

SET VARIABLE tracefork_beside = (SELECT list(writer) FROM _beside);
CREATE OR REPLACE MACRO _is_of_run(process_id, trace_id) AS
    coalesce(len(getvariable('tracefork_beside')), 0) = 0
    OR NOT list_contains(getvariable('tracefork_beside'), process_id || ' ' || trace_id);

-- Calls that came as messages and below which another span tells of a call too: two instrumentations saw one call, and
-- the inner one counts. Which they are shows once all of a trace is here, in whatever order it came.
CREATE OR REPLACE VIEW _told_below AS
WITH RECURSIVE received AS (
    SELECT e.trace_id, e.span_id, e.parent_span_id,
        _attribute(TRY_CAST(e.attributes AS JSON), 'tracefork.fidelity') = 'messages' AS of_messages
    FROM _all_exchanges e
    JOIN _senders s ON s.process_id = e.process_id AND s.rank = 2
), above AS (
    SELECT trace_id, parent_span_id AS span_id FROM received WHERE parent_span_id <> span_id
    UNION
    SELECT s.trace_id, s.parent_span_id
    FROM above a
    JOIN (
        SELECT trace_id, span_id, parent_span_id FROM _spans
        UNION ALL
        SELECT trace_id, span_id, parent_span_id FROM received
    ) s ON s.trace_id = a.trace_id AND s.span_id = a.span_id
    WHERE s.parent_span_id <> s.span_id
)
SELECT DISTINCT r.trace_id, r.span_id
FROM received r
JOIN above a ON a.trace_id = r.trace_id AND a.span_id = r.span_id
WHERE r.of_messages;

CREATE OR REPLACE TABLE _twice (trace_id VARCHAR, span_id VARCHAR);
INSERT INTO _twice FROM _told_below;

CREATE OR REPLACE VIEW _exchanges AS
SELECT e.*
FROM _all_exchanges e
ANTI JOIN _twice t ON t.trace_id = e.trace_id AND t.span_id = e.span_id
WHERE _is_of_run(e.process_id, e.trace_id);

CREATE OR REPLACE MACRO _event(events, wanted) AS json_extract_string(
    list_filter(TRY_CAST(TRY_CAST(events AS JSON) AS JSON[]), lambda e: e->>'$.name' = wanted)[1], '$.attributes."tracefork.body"'
);

-- A step is an exchange's place in its run: by start, ties by span id.
CREATE OR REPLACE VIEW _steps AS
SELECT *, CAST(row_number() OVER (PARTITION BY trace_id ORDER BY started_ns, span_id) - 1 AS INTEGER) AS step
FROM _exchanges;

CREATE OR REPLACE VIEW exchanges AS
SELECT
    e.trace_id AS run_id,
    e.step,
    e.span_id,
    e.parent_span_id,
    _at(e.started_ns) AS started_at,
    _ms(e.started_ns, e.ended_ns) AS duration_ms,
    e.chunk_offsets_us[1] / 1e3 AS ttfb_ms,
    e.method,
    e.url,
    coalesce(f.provider, _attribute(e.attributes, 'gen_ai.provider.name')) AS provider,
    coalesce(f.operation, _attribute(e.attributes, 'gen_ai.operation.name')) AS operation,
    coalesce(f.model, _attribute(e.attributes, 'gen_ai.request.model')) AS model,
    e.status_code,
    e.outcome,
    coalesce(f.streamed, e.response_headers ILIKE '%text/event-stream%', false) AS streamed,
    f.input_tokens,
    f.output_tokens,
    f.cached_tokens,
    f.cost_usd,
    e.request_length,
    lower(hex(e.request_sha256)) AS request_sha256,
    e.response_length,
    lower(hex(e.response_sha256)) AS response_sha256,
    e.replayed,
    e.intervention,
    coalesce(e.span_trace_id, e.trace_id) AS trace_id,
    f.cost_reason,
    e.site
FROM _steps e
LEFT JOIN _billed f ON f.trace_id = e.trace_id AND f.span_id = e.span_id;

-- The kind of an exchange's span, by what its recorder told. It is looked for in the text, where a quoted name with a colon
-- is no value: parsing takes longer.
CREATE OR REPLACE MACRO _kind(attributes) AS CASE
    WHEN contains(attributes, '"tracefork.below_call":false') THEN 'CLIENT'
    ELSE 'INTERNAL'
END;

-- Every span of every trace, the exchanges among them.
CREATE OR REPLACE VIEW spans AS
SELECT
    trace_id, span_id, parent_span_id, name, kind, _at(started_ns) AS started_at, _at(ended_ns) AS ended_at,
    status, service, scope, TRY_CAST(attributes AS JSON) AS attributes, TRY_CAST(events AS JSON) AS events, TRY_CAST(links AS JSON) AS links
FROM _spans
WHERE kind NOT IN ('process', 'note')
UNION ALL
SELECT
    trace_id, span_id, parent_span_id, name, _kind(attributes), _at(started_ns), _at(ended_ns),
    span_status, service, 'tracefork_otel', TRY_CAST(attributes AS JSON), '[]'::JSON, TRY_CAST(links AS JSON)
FROM (
    -- Two of them, so that a filter on the trace reaches the files.
    SELECT * EXCLUDE (span_trace_id) FROM _all_exchanges WHERE span_trace_id IS NULL
    UNION ALL
    SELECT * EXCLUDE (span_trace_id) REPLACE (span_trace_id AS trace_id) FROM _all_exchanges WHERE span_trace_id IS NOT NULL
);

-- First and last of each run of numbers; and all of the numbers, in order.
CREATE OR REPLACE MACRO _runs(pairs) AS list_transform(range(1, len(pairs), 2), lambda i: pairs[i:i + 1]);
CREATE OR REPLACE MACRO _numbers(pairs) AS flatten(list_transform(
    _runs(pairs), lambda run: CAST(range(run[1], run[2] + 1) AS INTEGER[])
));

-- Messages as the readers of wire formats read them: each is kept once in a segment, and goes by its number.
-- A step has the messages of a few runs of numbers. They are joined by blocks of 32, for a row of each message of each
-- step would be as many as the square of the steps; a block is parted where a number is missing.
-- What is kept is the small side of the join, and the filter on it tells DuckDB so.
CREATE OR REPLACE VIEW messages AS
SELECT
    run_id, step, CAST(before + no - first AS INTEGER) AS position,
    said[no - start + 1].role AS role, said[no - start + 1].kind AS kind, said[no - start + 1].name AS name,
    said[no - start + 1].content AS content
FROM (
    SELECT
        r.trace_id AS run_id, r.step, r.before, r.first, s.start, s.said,
        unnest(range(greatest(r.first, s.start), least(r.last + 1, s.until))) AS no
    FROM (
        SELECT *, unnest(range(first // 32, last // 32 + 1)) AS block
        FROM (
            SELECT
                segment, trace_id, step, run[1] AS first, run[2] AS last,
                sum(run[2] - run[1] + 1) OVER (PARTITION BY segment, trace_id, step ORDER BY place) - (run[2] - run[1] + 1)
                    AS before
            FROM (
                SELECT f.segment, e.trace_id, e.step, unnest(f.runs) AS run, generate_subscripts(f.runs, 1) AS place
                FROM _steps e
                JOIN (SELECT segment, trace_id, span_id, _runs(messages) AS runs FROM _facts) f
                    ON f.trace_id = e.trace_id AND f.span_id = e.span_id
            )
        )
    ) r
    JOIN (
        SELECT
            segment, trace_id, no // 32 AS block, min(no) AS start, min(no) + count(*) AS until,
            list(said ORDER BY no) AS said
        FROM (
            SELECT *, no - row_number() OVER (PARTITION BY segment, trace_id ORDER BY no) AS part
            FROM (
                SELECT
                    segment, trace_id, CAST(first_no + generate_subscripts(said, 1) - 1 AS INTEGER) AS no,
                    unnest(said) AS said
                FROM _facts
                WHERE len(said) > 0
            )
        )
        GROUP BY segment, trace_id, no // 32, part
    ) s ON s.segment = r.segment AND s.trace_id = r.trace_id AND s.block = r.block
);

-- Bodies byte for byte: their chunks in order.

CREATE OR REPLACE VIEW _pieces AS
SELECT p.trace_id, p.step, p.place, p.place <= p.request_count AS of_request, c.text, c.data
FROM (
    SELECT
        segment, trace_id, step, request_count,
        unnest(numbers) AS no,
        generate_subscripts(numbers, 1) AS place
    FROM (
        SELECT
            segment, trace_id, step,
            coalesce(len(_numbers(request_parts)), 0) AS request_count,
            list_concat(_numbers(request_parts), _numbers(response_parts)) AS numbers
        FROM _steps
    )
) p
JOIN _chunks c ON c.segment = p.segment AND c.no = p.no;

-- string_agg() makes text of a BLOB, so bytes that are not text go through hex.
CREATE OR REPLACE VIEW _bodies AS
SELECT
    trace_id,
    step,
    string_agg(text, '' ORDER BY place) FILTER (WHERE of_request) AS request_text,
    string_agg(text, '' ORDER BY place) FILTER (WHERE NOT of_request) AS response_text,
    unhex(string_agg(hex(coalesce(data, encode(text))), '' ORDER BY place) FILTER (WHERE of_request))
        AS request_bytes,
    unhex(string_agg(hex(coalesce(data, encode(text))), '' ORDER BY place) FILTER (WHERE NOT of_request))
        AS response_bytes,
    count(data) FILTER (WHERE of_request) AS request_binary,
    count(data) FILTER (WHERE NOT of_request) AS response_binary
FROM _pieces
GROUP BY trace_id, step;

CREATE OR REPLACE VIEW bodies AS
SELECT
    e.trace_id AS run_id,
    e.step,
    CASE WHEN e.request_length = 0 THEN '' WHEN b.request_binary = 0 THEN b.request_text END AS request,
    CASE
        WHEN f.response_text IS NOT NULL THEN f.response_text
        WHEN e.response_length = 0 THEN ''
        WHEN b.response_binary = 0 THEN b.response_text
    END AS response,
    CASE WHEN e.request_length = 0 THEN ''::BLOB ELSE b.request_bytes END AS request_bytes,
    CASE WHEN e.response_length = 0 THEN ''::BLOB ELSE b.response_bytes END AS response_bytes
FROM _steps e
LEFT JOIN _bodies b ON b.trace_id = e.trace_id AND b.step = e.step
LEFT JOIN _facts f ON f.trace_id = e.trace_id AND f.span_id = e.span_id;

-- Spans that say how a run began: its root, what stands under a root of another service, an agent's function.
CREATE OR REPLACE VIEW _heads AS
SELECT *
FROM _spans
WHERE kind NOT IN ('process', 'note') AND _is_of_run(process_id, trace_id)
    AND (parent_span_id IS NULL OR kind IN ('SERVER', 'CONSUMER') OR starts_with(name, 'invoke_agent '));

CREATE OR REPLACE VIEW _starts AS
SELECT
    trace_id,
    arg_min(struct_pack(name, service, kind, started_ns, ended_ns, status, attributes),
            struct_pack(
                remote := parent_span_id IS NOT NULL, part := attributes LIKE '%"tracefork.part"%', started_ns, span_id
            )) AS root,
    arg_min(attributes, started_ns) FILTER (WHERE attributes LIKE '%"tracefork.entrypoint"%') AS agent_attributes
FROM _heads
GROUP BY trace_id;

-- Further traces of a run: a script's whose spans are several, of which the first that asked something names the run.
CREATE OR REPLACE VIEW _further AS
SELECT DISTINCT process_id, span_trace_id AS trace_id, trace_id AS run_id
FROM _exchanges
WHERE span_trace_id IS NOT NULL;

-- How such a run ended, by the root that began last: where the process has a root of its own, that tells it by itself.
CREATE OR REPLACE VIEW _ends AS
SELECT f.run_id, arg_max(struct_pack(started_ns := h.started_ns, ended_ns := h.ended_ns, status := h.status), h.started_ns) AS root
FROM _further f
JOIN (SELECT * FROM _spans WHERE parent_span_id IS NULL AND kind NOT IN ('process', 'note')) h
    ON h.process_id = f.process_id AND h.trace_id = f.trace_id
GROUP BY f.run_id;

-- The session and the conversation that the first spans which name one say, of any span of the run.
CREATE OR REPLACE VIEW _named AS
SELECT trace_id, arg_min(session_id, started_ns) AS session_id, arg_min(conversation_id, started_ns) AS conversation_id
FROM (
    SELECT
        trace_id, started_ns,
        _attribute(attributes, 'session.id') AS session_id,
        _attribute(attributes, 'gen_ai.conversation.id') AS conversation_id
    FROM _spans
    WHERE kind = 'note' AND name = 'named' AND _is_of_run(process_id, trace_id)
)
GROUP BY trace_id;

-- What a run's processes say of it: the command that they belong to, and notes that make the run incomplete.
CREATE OR REPLACE VIEW _launches AS
SELECT DISTINCT e.trace_id, e.process_id, nullif(p.trace_id, '') AS launch_id
FROM (SELECT DISTINCT trace_id, process_id FROM _exchanges) e
LEFT JOIN (SELECT process_id, trace_id FROM _spans WHERE kind = 'process') p ON p.process_id = e.process_id;

-- Of what is missing it is known in which run it was, or in which command, or only in which process.
CREATE OR REPLACE VIEW _missing AS
WITH noted AS (
    SELECT name = 'unseen' AS unseen, process_id, trace_id
    FROM _spans
    WHERE kind = 'note' AND name IN ('lost', 'incomplete', 'unseen')
)
SELECT unseen, trace_id FROM noted
UNION
SELECT n.unseen, l.trace_id FROM _launches l JOIN noted n ON n.process_id = l.process_id WHERE n.trace_id = ''
UNION
SELECT n.unseen, l.trace_id FROM _launches l JOIN noted n ON n.trace_id = l.launch_id;

CREATE OR REPLACE VIEW _processes AS
SELECT l.trace_id, l.launch_id, n.trace_id IS NOT NULL AS has_losses
FROM (SELECT trace_id, min(launch_id) AS launch_id FROM _launches GROUP BY trace_id) l
LEFT JOIN _missing n ON n.trace_id = l.trace_id AND NOT n.unseen;

-- The command of a run that is not its own root's to tell.
CREATE OR REPLACE VIEW _commands AS
SELECT p.trace_id, min(_attribute(h.attributes, 'tracefork.command')) AS command
FROM _processes p
JOIN (SELECT trace_id, attributes FROM _spans WHERE parent_span_id IS NULL AND kind NOT IN ('process', 'note')) h
    ON h.trace_id = p.launch_id
WHERE p.launch_id <> p.trace_id
GROUP BY p.trace_id;

CREATE OR REPLACE VIEW _totals AS
SELECT
    e.trace_id,
    count(*) AS steps,
    min(e.started_ns) AS started_ns,
    max(coalesce(e.ended_ns, e.started_ns)) AS ended_ns,
    sum(f.input_tokens)::BIGINT AS input_tokens,
    sum(f.output_tokens)::BIGINT AS output_tokens,
    sum(f.cost_usd) AS cost_usd,
    count(f.cost_reason) AS unpriced,
    count(*) FILTER (WHERE e.outcome = 'in_flight') AS open,
    count(e.damage) AS damaged,
    bool_or(e.replayed) AS replayed,
    bool_or(l.process_id IS NOT NULL) AS live,
    arg_max(e.span_status, e.started_ns) AS last_status,
    arg_min(e.name, e.started_ns) AS first_name,
    arg_min(e.service, e.started_ns) AS service
FROM _exchanges e
LEFT JOIN _billed f ON f.trace_id = e.trace_id AND f.span_id = e.span_id
LEFT JOIN _live_processes l ON l.process_id = e.process_id
GROUP BY e.trace_id;

-- status: running (a process of it still writes), killed (it ended while something was open), error (the root
-- span, the last of several, or without one the last exchange, says so, or the command's exit status is not 0), part (all
-- that is here is what a tape held of it that was exported while it went on), else ok.
CREATE OR REPLACE VIEW runs AS
SELECT
    t.trace_id AS run_id,
    coalesce(nullif(r.root.name, ''), t.first_name) AS name,
    coalesce(nullif(r.root.service, ''), t.service) AS service,
    coalesce(_attribute(r.root.attributes, 'tracefork.run.kind'), CASE WHEN t.replayed THEN 'replay' ELSE 'record' END)
        AS kind,
    _at(least(t.started_ns, r.root.started_ns)) AS started_at,
    _ms(least(t.started_ns, r.root.started_ns), greatest(t.ended_ns, r.root.ended_ns, l.root.ended_ns)) AS duration_ms,
    t.steps,
    t.input_tokens,
    t.output_tokens,
    CASE
        WHEN _has_prices(r.root.attributes)
        THEN TRY_CAST(_attribute(r.root.attributes, 'tracefork.fork.cost_usd') AS DOUBLE) ELSE t.cost_usd
    END AS cost_usd,
    CASE
        WHEN t.live AND (t.open > 0 OR r.root IS NULL OR r.root.ended_ns IS NULL OR (l.root IS NOT NULL AND l.root.ended_ns IS NULL)) THEN 'running'
        WHEN t.open > 0 OR (r.root IS NOT NULL AND r.root.ended_ns IS NULL) OR (l.root IS NOT NULL AND l.root.ended_ns IS NULL) THEN 'killed'
        WHEN _attribute(r.root.attributes, 'tracefork.part') = 'true' THEN 'part'
        WHEN coalesce(l.root.status, r.root.status, t.last_status) = 'ERROR' THEN 'error'
        WHEN _attribute(r.root.attributes, 'tracefork.exit_status') <> '0' THEN 'error'
        ELSE 'ok'
    END AS status,
    TRY_CAST(_attribute(r.root.attributes, 'tracefork.run.outcome') AS BOOLEAN) AS outcome,
    t.open = 0 AND t.damaged = 0 AND NOT coalesce(p.has_losses, false) AS complete,
    _attribute(r.root.attributes, 'tracefork.parent.run_id') AS parent_run_id,
    TRY_CAST(_attribute(r.root.attributes, 'tracefork.fork.step') AS INTEGER) AS fork_step,
    _attribute(r.root.attributes, 'tracefork.experiment.id') AS experiment_id,
    _attribute(r.agent_attributes, 'tracefork.entrypoint') AS entrypoint,
    coalesce(_attribute(r.root.attributes, 'tracefork.command'), c.command) AS command,
    coalesce(n.session_id, nullif(_attribute(r.root.attributes, 'session.id'), '')) AS session_id,
    coalesce(n.conversation_id, nullif(_attribute(r.root.attributes, 'gen_ai.conversation.id'), '')) AS conversation_id,
    CASE
        WHEN _has_prices(r.root.attributes)
        THEN TRY_CAST(_attribute(r.root.attributes, 'tracefork.fork.unpriced') AS BIGINT) ELSE t.unpriced
    END AS unpriced
FROM _totals t
LEFT JOIN _named n ON n.trace_id = t.trace_id
LEFT JOIN _starts r ON r.trace_id = t.trace_id
LEFT JOIN _ends l ON l.run_id = t.trace_id AND r.root IS NOT NULL AND r.root.attributes NOT LIKE '%"tracefork.root"%'
    AND (r.root.started_ns <= l.root.started_ns)
LEFT JOIN _processes p ON p.trace_id = t.trace_id
LEFT JOIN _commands c ON c.trace_id = t.trace_id;

CREATE OR REPLACE VIEW tools AS
SELECT
    s.run_id,
    s.span_id,
    e.step AS step_before,
    coalesce(_attribute(s.attributes, 'gen_ai.tool.name'), substr(s.name, len('execute_tool ') + 1)) AS name,
    coalesce(
        _attribute(s.attributes, 'gen_ai.tool.call.arguments'), _event(s.events, 'tracefork.tool.arguments')
    ) AS arguments,
    coalesce(_attribute(s.attributes, 'gen_ai.tool.call.result'), _event(s.events, 'tracefork.tool.result')) AS result,
    CASE
        WHEN s.status = 'ERROR' THEN coalesce(
            nullif(s.status_message, ''), _attribute(s.attributes, 'error.type'), 'error')
    END AS error,
    _ms(s.started_ns, s.ended_ns) AS duration_ms,
    coalesce(_attribute(s.attributes, 'tracefork.replayed') = 'true', false) AS replayed
FROM (
    SELECT s.*, coalesce(f.run_id, s.trace_id) AS run_id
    FROM (
        SELECT *
        FROM _spans
        WHERE starts_with(name, 'execute_tool ') AND kind NOT IN ('process', 'note') AND _is_of_run(process_id, trace_id)
    ) s
    LEFT JOIN _further f ON f.process_id = s.process_id AND f.trace_id = s.trace_id
) s
ASOF LEFT JOIN _steps e ON e.trace_id = s.run_id AND e.started_ns <= s.started_ns;

CREATE OR REPLACE VIEW draws AS
SELECT
    run_id,
    CAST(row_number() OVER (PARTITION BY run_id ORDER BY started_ns, process_id, batch, place) - 1 AS INTEGER) AS position,
    streams[CAST(value[1] AS INTEGER) + 1][2]->>'$' AS source,
    streams[CAST(value[1] AS INTEGER) + 1][3]->>'$' AS site,
    value[3]->>'$' AS value
FROM (
    SELECT
        r.trace_id AS run_id, n.started_ns, n.process_id, n.batch, n.streams,
        generate_subscripts(n.values, 1) AS place,
        CAST(unnest(n.values) AS JSON[]) AS value
    FROM (
        SELECT
            process_id, trace_id, started_ns,
            CAST(attributes->>'$.batch' AS INTEGER) AS batch,
            CAST(attributes->'$.streams' AS JSON[][]) AS streams,
            CAST(attributes->'$.values' AS JSON[]) AS values
        FROM _spans
        WHERE kind = 'note' AND name = 'draws'
    ) n
    JOIN (SELECT DISTINCT trace_id, process_id FROM _exchanges) r
        ON r.process_id = n.process_id AND n.trace_id IN ('', r.trace_id)
);

-- Forks and trials, by the root span that the backend writes; calls_* count the exchanges of the fork's own trace.
CREATE OR REPLACE VIEW _forks AS
SELECT
    trace_id, started_ns, attributes,
    TRY_CAST(_attribute(attributes, 'tracefork.fork.step') AS INTEGER) AS step
FROM _spans
WHERE parent_span_id IS NULL AND kind = 'INTERNAL' AND attributes LIKE '%"tracefork.fork.step"%';

CREATE OR REPLACE VIEW _fork_calls AS
SELECT
    e.trace_id,
    count(*) FILTER (WHERE e.replayed AND e.served_span_id IS NOT NULL AND NOT e.memo) AS calls_replayed,
    count(*) FILTER (WHERE NOT e.replayed AND e.error_type IS DISTINCT FROM 'tracefork_otel.Drift') AS calls_live,
    count(*) FILTER (WHERE e.memo) AS calls_memo,
    sum(f.cost_usd) FILTER (WHERE NOT e.replayed) AS cost_usd,
    count(f.cost_reason) FILTER (WHERE NOT e.replayed) AS unpriced
FROM (
    SELECT *, coalesce(_attribute(attributes, 'tracefork.phase') = 'memo', false) AS memo
    FROM _exchanges
    WHERE trace_id IN (SELECT trace_id FROM _forks)
) e
LEFT JOIN _billed f ON f.trace_id = e.trace_id AND f.span_id = e.span_id
GROUP BY e.trace_id;

CREATE OR REPLACE VIEW forks AS
SELECT
    r.trace_id AS run_id,
    _attribute(r.attributes, 'tracefork.parent.run_id') AS parent_run_id,
    r.step,
    _attribute(r.attributes, 'tracefork.fork.intervention') AS intervention,
    _attribute(r.attributes, 'tracefork.fork.tail') AS tail,
    _attribute(r.attributes, 'tracefork.fork.scope') AS scope,
    TRY_CAST(_attribute(r.attributes, 'tracefork.fork.held_in') AS INTEGER) AS held_in,
    TRY_CAST(_attribute(r.attributes, 'tracefork.fork.held_of') AS INTEGER) AS held_of,
    TRY_CAST(_attribute(r.attributes, 'tracefork.run.outcome') AS BOOLEAN) AS outcome,
    TRY_CAST(_attribute(r.attributes, 'tracefork.fork.reconverged_at') AS INTEGER) AS reconverged_at,
    coalesce(c.calls_replayed, 0)::INTEGER AS calls_replayed,
    coalesce(c.calls_live, 0)::INTEGER AS calls_live,
    coalesce(c.calls_memo, 0)::INTEGER AS calls_memo,
    CASE
        WHEN _has_prices(r.attributes) THEN TRY_CAST(_attribute(r.attributes, 'tracefork.fork.cost_usd') AS DOUBLE)
        WHEN coalesce(c.calls_live, 0) = 0 THEN 0 ELSE c.cost_usd
    END AS cost_usd,
    _at(r.started_ns) AS created_at,
    CASE
        WHEN _has_prices(r.attributes) THEN TRY_CAST(_attribute(r.attributes, 'tracefork.fork.unpriced') AS INTEGER)
        ELSE coalesce(c.unpriced, 0)::INTEGER
    END AS unpriced
FROM _forks r
LEFT JOIN _fork_calls c ON c.trace_id = r.trace_id;
