-- What did each model cost, day by day?
select date_trunc('day', started_at) as day, model, count(*) as calls, sum(input_tokens) as input, sum(cost_usd) as usd
from exchanges where not replayed group by all order by day, usd desc

-- Which tools did the model call in this run, with what?
select step, name, content from messages
where run_id = (select run_id from runs where kind = 'record' order by started_at desc limit 1) and kind = 'tool_use' and role = 'assistant'
order by step, position

-- Where does a text occur?
select run_id, step from bodies where response like '%sold out%' or request like '%sold out%'

-- Which calls failed or were retried?
select run_id, step, status_code, outcome, url from exchanges where status_code >= 400 or outcome <> 'complete' order by started_at

-- What came of the forks of each run?
select parent_run_id, step, intervention, count(*) as forks, count(*) filter (outcome) as succeeded, sum(cost_usd) as usd
from forks group by all order by forks desc

-- Errors of the user's own spans
select trace_id, name, attributes->>'$."error.type"' as error from spans where status = 'ERROR'

-- Which steps were most often the root cause, over all runs, by model and by the tool that was called?
select model, tool, step, count(*) as experiments, avg(effect) as effect
from blame_effects where verdict = 'certified' and is_root group by all order by experiments desc

-- What did blame cost for each run?
select run_id, count(*) as experiments, sum(forks) as forks, sum(spent_usd) as usd from blame_experiments group by all order by usd desc

-- Why could forks not be graded?
select experiment_id, undefined_reason, count(*) as forks from blame_trials where status = 'undefined' group by all order by forks desc
