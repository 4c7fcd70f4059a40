-- runs_cost: what each stage took over all its runs (`salmon runs --cost`).
-- In:  runs; responses, rollouts (their current versions).
-- Out: one row per stage in the order of their first run, then the sum. tokens are those that the stage's current
--      version sampled; NULL where its table does not count them.
with attempts as (
  select stage, started, host, max(seconds) as seconds, sum(rows) as rows from runs group by stage, started, host
),
stages as (
  select stage, count(*) as runs, sum(seconds) as seconds, sum(rows) as rows, min(started) as first from attempts group by stage
),
sampled as (
  select 'responses' as stage, sum(tokens) as tokens from responses
  union all
  select 'policy:' || policy as stage, sum(cast(cardinality(response_ids) as bigint)) as tokens from rollouts group by policy
),
counted as (
  select s.stage, s.runs, s.rows, s.seconds, t.tokens, s.first
  from stages s left join sampled t on t.stage = s.stage
)
select stage, runs, rows, tokens, round(seconds, 2) as seconds from (
  select stage, runs, rows, tokens, seconds, 0 as place, first from counted
  union all
  select 'all stages', sum(runs), sum(rows), sum(tokens), sum(seconds), 1, null from counted
)
order by place, first, stage
