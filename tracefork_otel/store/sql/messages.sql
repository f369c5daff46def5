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
WHERE coalesce(f.operation, _attribute(e.attributes, 'gen_ai.operation.name')) IS NOT NULL AND f.asked IS NULL;

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
    SELECT trace_id, step, turn, place, said.role, said.kind, said.name, said.content, NULL
    FROM (
        SELECT e.trace_id, e.step, 2147483647 AS turn, unnest(f.reply) AS said, generate_subscripts(f.reply, 1) AS place
        FROM _steps e
        JOIN _facts f ON f.trace_id = e.trace_id AND f.span_id = e.span_id
        UNION ALL
        -- Of forms that are not read here.
        SELECT e.trace_id, e.step, 0, unnest(f.asked), generate_subscripts(f.asked, 1)
        FROM _steps e
        JOIN _facts f ON f.trace_id = e.trace_id AND f.span_id = e.span_id
    )
);
