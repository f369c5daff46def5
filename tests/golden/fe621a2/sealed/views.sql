SET VARIABLE tracefork_store='/tmp/tracefork-golden/sealed';
-- The views of a tracefork store, for any DuckDB >= 2.0:   duckdb -init .tracefork/views.sql
-- The file in a store begins with a line that sets `tracefork_store` to the store's directory.
-- Names that begin with _ are the files as they are; everything else is the contract of docs/sql.md.
-- Times are UTC TIMESTAMP, durations milliseconds, money US dollars.

SET parquet_metadata_cache = true;
SET TimeZone = 'UTC'; -- so that started_at compares with now() as it should

SET VARIABLE tracefork_segments = (
    SELECT segments
    FROM read_json(getvariable('tracefork_store') || '/MANIFEST.json',
                   columns = {segments: 'STRUCT(id VARCHAR, facts INTEGER)[]'}, maximum_object_size = 268435456)
);

-- >8 -- The backend's own connection begins here, with segments that it chose itself.

CREATE TABLE IF NOT EXISTS _live_exchanges (
    filename VARCHAR, trace_id VARCHAR, span_id VARCHAR, parent_span_id VARCHAR, process_id VARCHAR, seq INTEGER,
    started_ns BIGINT, ended_ns BIGINT, method VARCHAR, url VARCHAR, request_headers VARCHAR, status_code SMALLINT,
    http_version VARCHAR, response_headers VARCHAR, outcome VARCHAR, error_type VARCHAR, error_message VARCHAR,
    name VARCHAR, service VARCHAR, span_status VARCHAR, attributes VARCHAR, links VARCHAR, replayed BOOLEAN,
    intervention VARCHAR, served_span_id VARCHAR, request_sha256 BLOB, request_length BIGINT,
    request_parts INTEGER[], response_sha256 BLOB, response_length BIGINT, response_parts INTEGER[],
    chunk_sizes INTEGER[], chunk_offsets_us BIGINT[], damage VARCHAR
);
CREATE TABLE IF NOT EXISTS _live_spans (
    filename VARCHAR, trace_id VARCHAR, span_id VARCHAR, parent_span_id VARCHAR, process_id VARCHAR, name VARCHAR, kind VARCHAR,
    started_ns BIGINT, ended_ns BIGINT, status VARCHAR, status_message VARCHAR, service VARCHAR, scope VARCHAR,
    attributes VARCHAR, events VARCHAR, links VARCHAR
);
CREATE TABLE IF NOT EXISTS _live_chunks (filename VARCHAR, no INTEGER, text VARCHAR, data BLOB);
CREATE TABLE IF NOT EXISTS _live_facts (
    filename VARCHAR, trace_id VARCHAR, span_id VARCHAR, provider VARCHAR, operation VARCHAR, model VARCHAR, response_model VARCHAR,
    finish_reason VARCHAR, input_tokens BIGINT, output_tokens BIGINT, cached_tokens BIGINT, cost_usd DOUBLE,
    streamed BOOLEAN, response_text VARCHAR, reply STRUCT(role VARCHAR, kind VARCHAR, name VARCHAR, content VARCHAR)[]
);
-- Processes that still write: what they have not ended is running, what others have not ended was killed.
CREATE TABLE IF NOT EXISTS _live_processes (process_id VARCHAR);

-- read_parquet() refuses an empty list, so a store without segments gets another statement.
CREATE OR REPLACE MACRO _scan(files, empty) AS CASE
    WHEN len(files) = 0 THEN 'SELECT * FROM ' || empty || ' WHERE false'
    ELSE 'SELECT * FROM read_parquet(['
        || array_to_string(list_transform(files, lambda f: '''' || replace(f, '''', '''''') || ''''), ', ')
        || '], filename = true)'
END;
CREATE OR REPLACE MACRO _files(segments, ending) AS list_transform(
    segments, lambda s: getvariable('tracefork_store') || '/segments/' || s.id || ending
);
SET VARIABLE tracefork_scan_exchanges = _scan(
    _files(getvariable('tracefork_segments'), '.exchanges.parquet'), '_live_exchanges');
SET VARIABLE tracefork_scan_spans = _scan(_files(getvariable('tracefork_segments'), '.spans.parquet'), '_live_spans');
SET VARIABLE tracefork_scan_chunks = _scan(
    _files(getvariable('tracefork_segments'), '.chunks.parquet'), '_live_chunks');
SET VARIABLE tracefork_scan_facts = _scan(
    _files(list_filter(getvariable('tracefork_segments'), lambda s: s.facts IS NOT NULL), '.facts.parquet'),
    '_live_facts');

-- A filename is worth its first part only: the segment's id, which its four files share.
CREATE OR REPLACE VIEW _exchanges AS
SELECT split_part(parse_filename(filename), '.', 1) AS segment, * EXCLUDE (filename)
FROM (FROM query(getvariable('tracefork_scan_exchanges')) UNION ALL BY NAME FROM _live_exchanges);

CREATE OR REPLACE VIEW _spans AS
SELECT * EXCLUDE (filename)
FROM (FROM query(getvariable('tracefork_scan_spans')) UNION ALL BY NAME FROM _live_spans);

CREATE OR REPLACE VIEW _chunks AS
SELECT split_part(parse_filename(filename), '.', 1) AS segment, no, text, data
FROM (FROM query(getvariable('tracefork_scan_chunks')) UNION ALL BY NAME FROM _live_chunks);

CREATE OR REPLACE VIEW _facts AS
SELECT * EXCLUDE (filename)
FROM (FROM query(getvariable('tracefork_scan_facts')) UNION ALL BY NAME FROM _live_facts);

CREATE OR REPLACE MACRO _at(ns) AS make_timestamp(ns // 1000);
CREATE OR REPLACE MACRO _ms(start_ns, end_ns) AS (end_ns - start_ns) / 1e6;
CREATE OR REPLACE MACRO _attribute(attributes, key) AS json_extract_string(attributes, '$."' || key || '"');

CREATE OR REPLACE MACRO _event(events, wanted) AS json_extract_string(
    list_filter(CAST(events::JSON AS JSON[]), lambda e: e->>'$.name' = wanted)[1], '$.attributes."tracefork.body"'
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
    e.intervention
FROM _steps e
LEFT JOIN _facts f ON f.trace_id = e.trace_id AND f.span_id = e.span_id;

-- Every span of every trace, the exchanges among them.
CREATE OR REPLACE VIEW spans AS
SELECT
    trace_id, span_id, parent_span_id, name, kind, _at(started_ns) AS started_at, _at(ended_ns) AS ended_at,
    status, service, scope, attributes::JSON AS attributes, events::JSON AS events, links::JSON AS links
FROM _spans
WHERE kind NOT IN ('process', 'note')
UNION ALL
SELECT
    trace_id, span_id, parent_span_id, name, 'INTERNAL', _at(started_ns), _at(ended_ns),
    span_status, service, 'tracefork_otel', attributes::JSON, '[]'::JSON, links::JSON
FROM _exchanges;

-- Bodies byte for byte: the chunks from first to last of each pair in the body's parts, in order.
CREATE OR REPLACE MACRO _chunk_numbers(parts) AS flatten(list_transform(
    range(1, len(parts), 2), lambda i: CAST(range(parts[i], parts[i + 1] + 1) AS INTEGER[])
));

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
            coalesce(len(_chunk_numbers(request_parts)), 0) AS request_count,
            list_concat(_chunk_numbers(request_parts), _chunk_numbers(response_parts)) AS numbers
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
WHERE kind NOT IN ('process', 'note')
    AND (parent_span_id IS NULL OR kind IN ('SERVER', 'CONSUMER') OR starts_with(name, 'invoke_agent '));

CREATE OR REPLACE VIEW _starts AS
SELECT
    trace_id,
    arg_min(struct_pack(name, service, kind, started_ns, ended_ns, status, attributes),
            struct_pack(remote := parent_span_id IS NOT NULL, started_ns, span_id)) AS root,
    arg_min(attributes, started_ns) FILTER (WHERE attributes LIKE '%"tracefork.entrypoint"%') AS agent_attributes
FROM _heads
GROUP BY trace_id;

-- What a run's processes say of it: the command that they belong to, and notes that make the run incomplete.
CREATE OR REPLACE VIEW _processes AS
SELECT
    e.trace_id,
    min(p.trace_id) FILTER (WHERE p.kind = 'process' AND p.trace_id <> '') AS launch_id,
    count(*) FILTER (WHERE p.kind = 'note' AND p.name IN ('lost', 'incomplete') AND p.trace_id IN ('', e.trace_id))
        AS losses
FROM (SELECT DISTINCT trace_id, process_id FROM _exchanges) e
JOIN (SELECT process_id, trace_id, kind, name FROM _spans WHERE kind IN ('process', 'note')) p
    ON p.process_id = e.process_id
GROUP BY e.trace_id;

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
    count(*) FILTER (WHERE e.outcome = 'in_flight') AS open,
    count(e.damage) AS damaged,
    bool_or(e.replayed) AS replayed,
    bool_or(l.process_id IS NOT NULL) AS live,
    arg_max(e.span_status, e.started_ns) AS last_status,
    arg_min(e.name, e.started_ns) AS first_name,
    arg_min(e.service, e.started_ns) AS service
FROM _exchanges e
LEFT JOIN _facts f ON f.trace_id = e.trace_id AND f.span_id = e.span_id
LEFT JOIN _live_processes l ON l.process_id = e.process_id
GROUP BY e.trace_id;

-- status: running (a process of it still writes), killed (it ended while something was open), error (the root
-- span, or without one the last exchange, says so, or the command's exit status is not 0), else ok.
CREATE OR REPLACE VIEW runs AS
SELECT
    t.trace_id AS run_id,
    coalesce(nullif(r.root.name, ''), t.first_name) AS name,
    coalesce(nullif(r.root.service, ''), t.service) AS service,
    coalesce(_attribute(r.root.attributes, 'tracefork.run.kind'), CASE WHEN t.replayed THEN 'replay' ELSE 'record' END)
        AS kind,
    _at(least(t.started_ns, r.root.started_ns)) AS started_at,
    _ms(least(t.started_ns, r.root.started_ns), greatest(t.ended_ns, r.root.ended_ns)) AS duration_ms,
    t.steps,
    t.input_tokens,
    t.output_tokens,
    t.cost_usd,
    CASE
        WHEN t.live AND (t.open > 0 OR r.root IS NULL OR r.root.ended_ns IS NULL) THEN 'running'
        WHEN t.open > 0 OR (r.root IS NOT NULL AND r.root.ended_ns IS NULL) THEN 'killed'
        WHEN coalesce(r.root.status, t.last_status) = 'ERROR' THEN 'error'
        WHEN _attribute(r.root.attributes, 'tracefork.exit_status') <> '0' THEN 'error'
        ELSE 'ok'
    END AS status,
    TRY_CAST(_attribute(r.root.attributes, 'tracefork.run.outcome') AS BOOLEAN) AS outcome,
    t.open = 0 AND t.damaged = 0 AND coalesce(p.losses, 0) = 0 AS complete,
    _attribute(r.root.attributes, 'tracefork.parent.run_id') AS parent_run_id,
    TRY_CAST(_attribute(r.root.attributes, 'tracefork.fork.step') AS INTEGER) AS fork_step,
    _attribute(r.root.attributes, 'tracefork.experiment.id') AS experiment_id,
    _attribute(r.agent_attributes, 'tracefork.entrypoint') AS entrypoint,
    coalesce(_attribute(r.root.attributes, 'tracefork.command'), c.command) AS command
FROM _totals t
LEFT JOIN _starts r ON r.trace_id = t.trace_id
LEFT JOIN _processes p ON p.trace_id = t.trace_id
LEFT JOIN _commands c ON c.trace_id = t.trace_id;

CREATE OR REPLACE VIEW tools AS
SELECT
    s.trace_id AS run_id,
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
FROM (SELECT * FROM _spans WHERE starts_with(name, 'execute_tool ') AND kind NOT IN ('process', 'note')) s
ASOF LEFT JOIN _steps e ON e.trace_id = s.trace_id AND e.started_ns <= s.started_ns;

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
    sum(f.cost_usd) FILTER (WHERE NOT e.replayed) AS cost_usd
FROM (
    SELECT *, coalesce(_attribute(attributes, 'tracefork.phase') = 'memo', false) AS memo
    FROM _exchanges
    WHERE trace_id IN (SELECT trace_id FROM _forks)
) e
LEFT JOIN _facts f ON f.trace_id = e.trace_id AND f.span_id = e.span_id
GROUP BY e.trace_id;

CREATE OR REPLACE VIEW forks AS
SELECT
    r.trace_id AS run_id,
    _attribute(r.attributes, 'tracefork.parent.run_id') AS parent_run_id,
    r.step,
    _attribute(r.attributes, 'tracefork.fork.intervention') AS intervention,
    _attribute(r.attributes, 'tracefork.fork.tail') AS tail,
    TRY_CAST(_attribute(r.attributes, 'tracefork.run.outcome') AS BOOLEAN) AS outcome,
    TRY_CAST(_attribute(r.attributes, 'tracefork.fork.reconverged_at') AS INTEGER) AS reconverged_at,
    coalesce(c.calls_replayed, 0)::INTEGER AS calls_replayed,
    coalesce(c.calls_live, 0)::INTEGER AS calls_live,
    coalesce(c.calls_memo, 0)::INTEGER AS calls_memo,
    CASE WHEN coalesce(c.calls_live, 0) = 0 THEN 0 ELSE c.cost_usd END AS cost_usd,
    _at(r.started_ns) AS created_at
FROM _forks r
LEFT JOIN _fork_calls c ON c.trace_id = r.trace_id;

-- The view `messages`, the second half of a store's views.sql. The backend runs it only when somebody asks for
-- messages: to plan it takes longer than to answer.

-- Four wire formats, read by the rules of the backend's provider modules. Whatever OpenAI's two formats
-- and Gemini's say is first written as blocks of Anthropic's kind, so that one place reads them all.
CREATE OR REPLACE MACRO _string(j, path) AS CASE
    WHEN json_type(j, path) = 'VARCHAR' THEN json_extract_string(j, path)
END;
CREATE OR REPLACE MACRO _given(j, path) AS CASE WHEN json_type(j, path) <> 'NULL' THEN json_extract(j, path) END;
CREATE OR REPLACE MACRO _objects(j, path) AS list_filter(
    CAST(CASE WHEN json_type(j, path) = 'ARRAY' THEN json_extract(j, path) ELSE '[]'::JSON END AS JSON[]),
    lambda o: json_type(o) = 'OBJECT'
);
CREATE OR REPLACE MACRO _truthy(text) AS nullif(text, '');
CREATE OR REPLACE MACRO _base64(kind, data) AS '[' || kind || ', ' || len(data) || ' base64 characters]';
-- The lambda is there so that what stands for `url` is planned once and not at every mention.
CREATE OR REPLACE MACRO _short_url(url) AS list_transform([url], lambda u: CASE
    WHEN starts_with(u, 'data:') AND contains(u, ',') THEN _base64(
        coalesce(nullif(split_part(substr(split_part(u, ',', 1), 6), ';', 1), ''), 'data'),
        substr(u, instr(u, ',') + 1))
    WHEN len(u) < 4096 THEN u
    ELSE _base64('data', u)
END)[1];
CREATE OR REPLACE MACRO _source(part) AS coalesce(
    _base64(coalesce(_truthy(_string(part, '$.source.media_type')), 'data'), _string(part, '$.source.data')),
    _truthy(_string(part, '$.source.url')), _truthy(_string(part, '$.source.file_id')),
    CASE WHEN json_type(part, '$.source') = 'OBJECT' THEN CAST(json_extract(part, '$.source') AS VARCHAR) END, '{}'
);
CREATE OR REPLACE MACRO _lines(texts) AS coalesce(array_to_string(texts, chr(10)), '');

-- What a block, or a part of a tool's result, says as text.
CREATE OR REPLACE MACRO _part_text(p) AS CASE
    WHEN p->>'$.type' IN ('text', 'input_text', 'output_text', 'summary_text', 'reasoning_text')
        THEN coalesce(_string(p, '$.text'), '')
    WHEN p->>'$.type' = 'thinking' THEN coalesce(_string(p, '$.thinking'), '')
    WHEN p->>'$.type' = 'redacted_thinking' THEN ''
    WHEN p->>'$.type' = 'refusal' THEN coalesce(_string(p, '$.refusal'), '')
    WHEN p->>'$.type' = 'compaction' THEN coalesce(_string(p, '$.content'), '')
    WHEN p->>'$.type' = 'image' THEN _source(p)
    WHEN p->>'$.type' = 'document' THEN CASE
        WHEN json_type(p, '$.source.content') = 'ARRAY' THEN _lines(list_transform(
            _objects(p, '$.source.content'), lambda q: coalesce(_truthy(_string(q, '$.text')), _source(q))))
        WHEN _string(p, '$.source.type') = 'text' AND json_type(p, '$.source.data') = 'VARCHAR'
            THEN _string(p, '$.source.data')
        ELSE coalesce(_string(p, '$.source.content'), _source(p))
    END
    WHEN p->>'$.type' = 'search_result' THEN _lines(list_transform(
        _objects(p, '$.content'), lambda q: coalesce(_string(q, '$.text'), '')))
    WHEN p->>'$.type' IN ('image_url', 'input_image', 'computer_screenshot', 'file', 'input_file')
        THEN _short_url(coalesce(
            _truthy(_string(p, '$.image_url')), _truthy(_string(p, '$.image_url.url')),
            _truthy(_string(p, '$.file.file_data')), _truthy(_string(p, '$.file_data')),
            _truthy(_string(p, '$.file.file_url')), _truthy(_string(p, '$.file_url')),
            _string(p, '$.file.file_id'), _string(p, '$.file_id'), ''))
    WHEN p->>'$.type' = 'input_audio' THEN _base64(
        'audio/' || coalesce(_string(p, '$.input_audio.format'), 'None'),
        coalesce(_string(p, '$.input_audio.data'), ''))
    ELSE CAST(p AS VARCHAR)
END;
CREATE OR REPLACE MACRO _block_kind(type) AS CASE
    WHEN type IN ('text', 'input_text', 'output_text', 'summary_text') THEN 'text'
    WHEN type IN ('thinking', 'reasoning_text') THEN 'thinking'
    WHEN type IN ('redacted_thinking', 'refusal') THEN type
    WHEN ends_with(type, 'tool_use') THEN 'tool_use'
    WHEN ends_with(type, 'tool_result') THEN 'tool_result'
    WHEN type IN ('image', 'image_url', 'input_image', 'computer_screenshot') THEN 'image'
    WHEN type IN ('document', 'search_result', 'file', 'input_file') THEN 'document'
    ELSE 'other'
END;

CREATE OR REPLACE MACRO _block(role, b) AS struct_pack(role := CAST(role AS VARCHAR), b := CAST(b AS JSON));
CREATE OR REPLACE MACRO _content_blocks(role, item) AS list_transform(
    CASE
        WHEN json_type(item, '$.content') = 'VARCHAR'
            THEN [json_object('type', 'text', 'text', json_extract(item, '$.content'))]
        ELSE _objects(item, '$.content')
    END,
    lambda b: _block(role, b)
);
CREATE OR REPLACE MACRO _text_block(role, type, key, text) AS CASE
    WHEN text <> '' THEN [_block(role, json_object('type', type, CAST(key AS VARCHAR), text))] ELSE []
END;
CREATE OR REPLACE MACRO _call_block(role, id, name, input) AS _block(
    role, json_object('type', 'tool_use', 'id', id, 'name', name, 'input', coalesce(input, '""'::JSON)));
CREATE OR REPLACE MACRO _result_block(role, id, content) AS _block(
    role, json_object('type', 'tool_result', 'tool_use_id', id, 'content', content));

CREATE OR REPLACE MACRO _chat_blocks(role, turn) AS CASE
    WHEN role IN ('tool', 'function') THEN [_result_block(
        role, coalesce(_truthy(_string(turn, '$.tool_call_id')), _string(turn, '$.name')),
        json_extract(turn, '$.content'))]
    ELSE _text_block(role, 'thinking', 'thinking', coalesce(
        _truthy(_string(turn, '$.reasoning_content')), _string(turn, '$.reasoning')))
    || CASE
        -- Beside tool calls or a refusal an empty content says nothing.
        WHEN _string(turn, '$.content') = '' AND (
            coalesce(json_array_length(turn, '$.tool_calls'), 0) > 0 OR _string(turn, '$.refusal') <> ''
            OR json_type(turn, '$.function_call') = 'OBJECT') THEN []
        ELSE _content_blocks(role, turn)
    END
    || _text_block(role, 'refusal', 'refusal', _string(turn, '$.refusal'))
    || _text_block(role, 'compaction', 'content', _string(turn, '$.audio.transcript'))
    || list_transform(_objects(turn, '$.tool_calls'), lambda c: _call_block(
        role, _string(c, '$.id'), coalesce(_string(c, '$.function.name'), _string(c, '$.custom.name')),
        coalesce(
            _given(c, '$.function.arguments'), _given(c, '$.function.input'),
            _given(c, '$.custom.arguments'), _given(c, '$.custom.input'))))
    || CASE
        WHEN json_type(turn, '$.function_call') = 'OBJECT' THEN [_call_block(
            role, NULL, _string(turn, '$.function_call.name'), _given(turn, '$.function_call.arguments'))]
        ELSE []
    END
END;

CREATE OR REPLACE MACRO _thoughts(item, path) AS _truthy(array_to_string(list_filter(
    list_transform(_objects(item, path), lambda p: _string(p, '$.text')), lambda t: t <> ''), chr(10) || chr(10)));
-- A tool's output is parts of input, or one screenshot, or text; anything else is its JSON.
CREATE OR REPLACE MACRO _output(v) AS CASE
    WHEN json_type(v) IN ('VARCHAR', 'NULL') THEN v
    WHEN v->>'$.type' = 'computer_screenshot' THEN json_array(v)
    WHEN json_array_length(v) > 0 AND json_array_length(v) = len(list_filter(
        _objects(v, '$'), lambda p: starts_with(p->>'$.type', 'input_'))) THEN v
    ELSE to_json(CAST(v AS VARCHAR))
END;
CREATE OR REPLACE MACRO _responses_blocks(role, type, item) AS CASE
    WHEN type = 'message' THEN _content_blocks(coalesce(_string(item, '$.role'), role), item)
    WHEN type = 'reasoning' THEN [_block('assistant', json_object(
        'type',
        CASE
            WHEN coalesce(_thoughts(item, '$.content'), _thoughts(item, '$.summary')) IS NULL
                AND _string(item, '$.encrypted_content') <> '' THEN 'redacted_thinking'
            ELSE 'thinking'
        END,
        'thinking', coalesce(_thoughts(item, '$.content'), _thoughts(item, '$.summary'))))]
    WHEN ends_with(type, '_output') THEN [_result_block(
        'tool', _string(item, '$.call_id'),
        _output(json_extract(item, CASE WHEN json_exists(item, '$.output') THEN '$.output' ELSE '$.tools' END)))]
    WHEN ends_with(type, '_call') THEN list_filter(
        [
            _call_block(
                'assistant', _string(item, '$.call_id'),
                coalesce(_string(item, '$.name'), regexp_replace(type, '_call$', '')),
                coalesce(
                    _given(item, '$.arguments'), _given(item, '$.input'), _given(item, '$.action'),
                    _given(item, '$.actions'), _given(item, '$.queries'), _given(item, '$.code'),
                    _given(item, '$.operation'))),
            -- Tools that the provider runs have their result beside the call.
            _result_block(
                'tool', coalesce(_string(item, '$.name'), regexp_replace(type, '_call$', '')),
                CASE
                    WHEN type = 'image_generation_call' AND json_type(item, '$.result') = 'VARCHAR' THEN json_array(
                        json_object('type', 'input_image', 'image_url', json_extract(item, '$.result')))
                    ELSE _output(coalesce(
                        _given(item, '$.output'), _given(item, '$.outputs'), _given(item, '$.results'),
                        _given(item, '$.result'), _given(item, '$.error'), _given(item, '$.tools')))
                END)
        ],
        lambda m: json_type(m.b, '$.content') <> 'NULL' OR m.b->>'$.type' = 'tool_use')
    WHEN type = 'compaction' THEN [_block('assistant', json_object('type', 'compaction'))]
    ELSE [_block(role, item)]
END;

-- Gemini's JSON is spelled both in camel case and with underscores, as its clients please.
CREATE OR REPLACE MACRO _either(j, camel, snake) AS coalesce(_given(j, camel), _given(j, snake));
CREATE OR REPLACE MACRO _plain(v) AS CASE json_type(v) WHEN 'VARCHAR' THEN v->>'$' ELSE CAST(v AS VARCHAR) END;
-- What an SDK wrapped because the wire wants an object is told without the wrapping.
CREATE OR REPLACE MACRO _returned(answer) AS _plain(CASE
    WHEN list_contains([['result'], ['output']], json_keys(answer, '$.response'))
        THEN _given(answer, '$.response.' || json_keys(answer, '$.response')[1])
    ELSE _given(answer, '$.response')
END);
CREATE OR REPLACE MACRO _gemini_media(role, d, mime) AS list_transform(
    [coalesce(
        _base64(coalesce(_truthy(mime), 'data'), _string(d, '$.data')),
        _truthy(_plain(_either(d, '$.fileUri', '$.file_uri'))), CAST(d AS VARCHAR))],
    lambda t: CASE
        WHEN starts_with(mime, 'image/')
            THEN _block(role, json_object('type', 'image', 'source', json_object('url', t)))
        WHEN starts_with(mime, 'application/') OR starts_with(mime, 'text/') THEN _block(role, json_object(
            'type', 'document', 'title', _either(d, '$.displayName', '$.display_name'),
            'source', json_object('url', t)))
        ELSE _block(role, json_object('type', 'compaction', 'content', t))
    END
);
CREATE OR REPLACE MACRO _gemini_part(role, p) AS CASE
    WHEN json_type(p, '$.text') = 'VARCHAR' THEN CASE
        -- A signature comes beside an empty text.
        WHEN p->>'$.text' = '' AND _either(p, '$.thoughtSignature', '$.thought_signature') IS NOT NULL THEN []
        WHEN json_type(p, '$.thought') = 'BOOLEAN' AND p->>'$.thought' = 'true'
            THEN [_block(role, json_object('type', 'thinking', 'thinking', p->>'$.text'))]
        ELSE [_block(role, json_object('type', 'text', 'text', p->>'$.text'))]
    END
    WHEN json_type(_either(p, '$.functionCall', '$.function_call')) = 'OBJECT' THEN list_transform(
        [_either(p, '$.functionCall', '$.function_call')],
        lambda c: _call_block(role, NULL, _string(c, '$.name'), coalesce(_given(c, '$.args'), '{}'::JSON)))
    WHEN json_type(_either(p, '$.functionResponse', '$.function_response')) = 'OBJECT' THEN list_transform(
        [_either(p, '$.functionResponse', '$.function_response')],
        lambda a: _result_block(
            'tool', coalesce(_truthy(_string(a, '$.name')), _string(a, '$.id')), _returned(a)))
    WHEN json_type(coalesce(_either(p, '$.inlineData', '$.inline_data'), _either(p, '$.fileData', '$.file_data')))
        = 'OBJECT' THEN list_transform(
            [coalesce(_either(p, '$.inlineData', '$.inline_data'), _either(p, '$.fileData', '$.file_data'))],
            lambda d: _gemini_media(role, d, coalesce(_plain(_either(d, '$.mimeType', '$.mime_type')), ''))[1])
    ELSE [_block(role, json_object('type', 'compaction', 'content', CAST(p AS VARCHAR)))]
END;
CREATE OR REPLACE MACRO _gemini_blocks(role, content) AS
    flatten(list_transform(_objects(content, '$.parts'), lambda p: _gemini_part(role, p)));

-- A plain JSON reply as turns; one that streamed or was encoded is read at sealing, into _facts.reply.
CREATE OR REPLACE MACRO _reply_turns(form, j) AS CASE form
    WHEN 'anthropic' THEN [_block('assistant', j)]
    WHEN 'responses' THEN list_transform(_objects(j, '$.output'), lambda i: _block('assistant', i))
    WHEN 'gemini' THEN list_transform(_objects(j, '$.candidates'), lambda c: _block(
        coalesce(_truthy(_string(c, '$.content.role')), 'model'), coalesce(_given(c, '$.content'), '{}'::JSON)))
    ELSE list_transform(
        list_filter(_objects(j, '$.choices'), lambda c: json_type(c, '$.message') = 'OBJECT'),
        lambda c: _block('assistant', json_extract(c, '$.message')))
END;

-- A request as turns, what is system first, then as blocks.
CREATE OR REPLACE MACRO _turns(form, j) AS CASE
    WHEN form = 'responses' THEN CASE
        WHEN json_type(j, '$.instructions') = 'VARCHAR' THEN [_block(
            'system', json_object('type', 'message', 'content', json_extract(j, '$.instructions')))]
        ELSE list_transform(_objects(j, '$.instructions'), lambda i: _block('system', i))
    END || CASE
        WHEN json_type(j, '$.input') = 'VARCHAR' THEN [_block(
            'user', json_object('type', 'message', 'content', json_extract(j, '$.input')))]
        ELSE list_transform(_objects(j, '$.input'), lambda i: _block('user', i))
    END
    WHEN form = 'gemini' THEN list_transform(
        list_filter([_either(j, '$.systemInstruction', '$.system_instruction')], lambda s: s IS NOT NULL),
        lambda s: _block('system', CASE json_type(s)
            WHEN 'VARCHAR' THEN json_object('parts', json_array(json_object('text', s))) ELSE s END))
    || list_transform(
        _objects(j, '$.contents'), lambda c: _block(coalesce(_truthy(_string(c, '$.role')), 'user'), c))
    ELSE CASE
        WHEN form = 'anthropic' AND json_type(j, '$.system') <> 'NULL'
            THEN [_block('system', json_object('content', json_extract(j, '$.system')))]
        ELSE []
    END || list_transform(_objects(j, '$.messages'), lambda m: _block(coalesce(_string(m, '$.role'), 'user'), m))
END;

CREATE OR REPLACE VIEW _requests AS
SELECT
    e.trace_id,
    e.step,
    CASE WHEN b.request_binary = 0 THEN TRY_CAST(b.request_text AS JSON) END AS j,
    CASE
        WHEN f.reply IS NULL AND e.status_code < 400 AND b.response_binary = 0
            THEN TRY_CAST(b.response_text AS JSON)
    END AS replied,
    CASE
        WHEN regexp_matches(e.url, '(/v1/messages|:(streamRawPredict|rawPredict))/?(\?|$)') THEN 'anthropic'
        WHEN regexp_matches(e.url, '/responses/?(\?|$)') THEN 'responses'
        WHEN regexp_matches(e.url, '(:|%3[Aa])(g|streamG)enerateContent/?(\?|$)') THEN 'gemini'
        ELSE 'chat'
    END AS form
FROM _steps e
JOIN _bodies b ON b.trace_id = e.trace_id AND b.step = e.step
LEFT JOIN _facts f ON f.trace_id = e.trace_id AND f.span_id = e.span_id
WHERE coalesce(f.operation, _attribute(e.attributes, 'gen_ai.operation.name')) IS NOT NULL;

CREATE OR REPLACE VIEW _blocks AS
SELECT trace_id, step, turn, place, said.role, said.b, _block_kind(_string(said.b, '$.type')) AS kind
FROM (
    SELECT trace_id, step, turn, unnest(blocks) AS said, generate_subscripts(blocks, 1) AS place
    FROM (
        SELECT
            trace_id, step, turn,
            CASE form
                WHEN 'anthropic' THEN _content_blocks(t.role, t.b)
                WHEN 'chat' THEN _chat_blocks(t.role, t.b)
                WHEN 'gemini' THEN _gemini_blocks(t.role, t.b)
                ELSE _responses_blocks(
                    t.role,
                    coalesce(
                        _string(t.b, '$.type'),
                        CASE WHEN json_exists(t.b, '$.content') THEN 'message' ELSE 'item_reference' END),
                    t.b)
            END AS blocks
        FROM (
            SELECT trace_id, step, form, unnest(turns) AS t, generate_subscripts(turns, 1) AS turn
            FROM (
                SELECT trace_id, step, form, coalesce(_turns(form, j), []) || coalesce(_reply_turns(form, replied), []) AS turns
                FROM _requests
            )
        )
    )
);

CREATE OR REPLACE VIEW messages AS
SELECT
    trace_id AS run_id,
    step,
    CAST(row_number() OVER (PARTITION BY trace_id, step ORDER BY turn, place) - 1 AS INTEGER) AS position,
    role,
    kind,
    -- A result goes by the name of the call that it answers, where the same request holds that call.
    CASE
        WHEN kind = 'tool_result' AND call_id IS NOT NULL
            THEN coalesce(max(name) OVER (PARTITION BY trace_id, step, call_id), call_id)
        ELSE name
    END AS name,
    content
FROM (
    SELECT
        trace_id, step, turn, place, role, kind,
        CASE kind
            WHEN 'tool_use' THEN _string(b, '$.name')
            WHEN 'document' THEN coalesce(
                _string(b, '$.title'), _string(b, '$.file.filename'), _string(b, '$.filename'))
        END AS name,
        coalesce(plain, _lines(list_transform(parts, lambda p: _part_text(p)))) AS content,
        CASE kind
            WHEN 'tool_use' THEN _string(b, '$.id')
            WHEN 'tool_result' THEN _string(b, '$.tool_use_id')
        END AS call_id
    FROM (
        SELECT
            *,
            CASE kind WHEN 'tool_result' THEN _objects(b, '$.content') ELSE [b] END AS parts,
            CASE
                WHEN kind = 'tool_use'
                    THEN coalesce(_string(b, '$.input'), CAST(json_extract(b, '$.input') AS VARCHAR), '{}')
                WHEN kind = 'tool_result' AND (json_type(b, '$.content') <> 'ARRAY'
                    OR json_array_length(b, '$.content') <> len(_objects(b, '$.content')))
                    THEN coalesce(_string(b, '$.content'), CAST(_given(b, '$.content') AS VARCHAR), '')
            END AS plain
        FROM _blocks
    )
    UNION ALL
    SELECT trace_id, step, 2147483647, place, said.role, said.kind, said.name, said.content, NULL
    FROM (
        SELECT e.trace_id, e.step, unnest(f.reply) AS said, generate_subscripts(f.reply, 1) AS place
        FROM _steps e
        JOIN _facts f ON f.trace_id = e.trace_id AND f.span_id = e.span_id
    )
);

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

CREATE OR REPLACE VIEW _blame_rows AS
SELECT
    _attribute(s.attributes, 'tracefork.blame.arm') AS arm,
    _attribute(s.attributes, 'tracefork.blame.trial') AS trial,
    _attribute(s.attributes, 'tracefork.blame.effect') AS effect,
    _attribute(s.attributes, 'tracefork.blame.set') AS joint
FROM _spans s
JOIN _blame_roots r ON r.trace_id = s.trace_id
WHERE s.attributes LIKE '%"tracefork.blame.%';

CREATE OR REPLACE VIEW blame_experiments AS
SELECT x.* EXCLUDE (created_ns), _at(x.created_ns) AS created_at
FROM (
    SELECT unnest(json_transform(row, '{"experiment_id": "VARCHAR", "run_id": "VARCHAR", "tape_sha256": "VARCHAR",
        "created_ns": "BIGINT", "n_steps": "INTEGER", "parent_outcome": "BOOLEAN", "mode": "VARCHAR",
        "perturbation": "VARCHAR", "coupling": "VARCHAR", "oracle_name": "VARCHAR", "alpha": "DOUBLE",
        "multiplicity": "VARCHAR", "params_json": "VARCHAR", "budget_usd": "DOUBLE", "spent_usd": "DOUBLE",
        "forks": "INTEGER", "controls": "INTEGER", "stop_reason": "VARCHAR", "baseline_flips": "INTEGER",
        "baseline_trials": "INTEGER", "deterministic": "BOOLEAN", "top_step": "INTEGER", "message": "VARCHAR",
        "oracle_note": "VARCHAR", "grading_usd": "DOUBLE"}'))
    FROM _blame_roots
) x;

CREATE OR REPLACE VIEW blame_arms AS
SELECT unnest(json_transform(arm, '{"experiment_id": "VARCHAR", "arm_id": "VARCHAR", "role": "VARCHAR",
    "start_step": "INTEGER", "steps": ["INTEGER"], "altered": ["INTEGER"], "trials": "INTEGER", "flips": "INTEGER",
    "undefined": "INTEGER"}'))
FROM _blame_rows WHERE arm IS NOT NULL;

CREATE OR REPLACE VIEW blame_trials AS
SELECT x.* EXCLUDE (started_ns, ended_ns), _at(x.started_ns) AS started_at, _at(x.ended_ns) AS ended_at
FROM (
    SELECT unnest(json_transform(trial, '{"experiment_id": "VARCHAR", "trial_id": "VARCHAR", "arm_id": "VARCHAR",
        "role": "VARCHAR", "steps": ["INTEGER"], "altered": ["INTEGER"], "kept": "INTEGER", "replicate": "INTEGER",
        "phase": "VARCHAR", "seq": "INTEGER", "run_id": "VARCHAR", "status": "VARCHAR",
        "undefined_reason": "VARCHAR", "outcome": "BOOLEAN", "tail_sha256": "VARCHAR", "calls_live": "INTEGER",
        "calls_memo": "INTEGER", "cost_usd": "DOUBLE", "started_ns": "BIGINT", "ended_ns": "BIGINT"}'))
    FROM _blame_rows WHERE trial IS NOT NULL
) x;

CREATE OR REPLACE VIEW blame_effects AS
SELECT unnest(json_transform(effect, '{"experiment_id": "VARCHAR", "run_id": "VARCHAR", "rank": "INTEGER",
    "step": "INTEGER", "verdict": "VARCHAR", "reason": "VARCHAR", "flip_rate": "DOUBLE", "control_rate": "DOUBLE",
    "effect": "DOUBLE", "ci_low": "DOUBLE", "ci_high": "DOUBLE", "ci_kind": "VARCHAR", "bound_low": "DOUBLE",
    "bound_high": "DOUBLE", "log_e": "DOUBLE", "e_value": "DOUBLE", "q_value": "DOUBLE", "pairs": "INTEGER",
    "n_treatment": "INTEGER", "flips_treatment": "INTEGER", "undefined_treatment": "INTEGER", "n_control": "INTEGER",
    "flips_control": "INTEGER", "undefined_control": "INTEGER", "is_root": "BOOLEAN", "echo_of": "INTEGER",
    "forks": "INTEGER", "cost_usd": "DOUBLE", "model": "VARCHAR", "tool": "VARCHAR", "preview": "VARCHAR"}'))
FROM _blame_rows WHERE effect IS NOT NULL;

CREATE OR REPLACE VIEW blame_sets AS
SELECT unnest(json_transform(joint, '{"experiment_id": "VARCHAR", "set_id": "VARCHAR", "steps": ["INTEGER"],
    "kind": "VARCHAR", "verdict": "VARCHAR", "reason": "VARCHAR", "flip_rate": "DOUBLE", "log_e_min": "DOUBLE",
    "n_trials": "INTEGER"}'))
FROM _blame_rows WHERE joint IS NOT NULL;

-- The steps that have something to say, the most to blame first.
CREATE OR REPLACE VIEW blame AS
SELECT
    experiment_id, run_id, rank, step, verdict, effect, ci_low, ci_high, flip_rate, control_rate, e_value, q_value,
    is_root, n_treatment AS trials, n_control AS controls, cost_usd, model, preview
FROM blame_effects
WHERE rank IS NOT NULL
ORDER BY experiment_id, rank;
