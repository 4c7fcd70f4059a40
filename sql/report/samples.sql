-- A few answers of each policy: of the SFT policy those that were judged, of the others the last step's rollouts.
-- In:  prompts, responses, rollouts.
with last as (
  select policy, max(step) as step from rollouts group by policy
),
answers as (
  select false as trained, 'sft' as policy, r.prompt_id, p.instruction, r.response, r.finish_reason,
    cast(null as double) as score, cast(null as bigint) as step
  from responses r join prompts p on p.prompt_id = r.prompt_id
  where r.sample = 0
  union all
  select true, r.policy, r.prompt_id, r.instruction, r.response, r.finish_reason, r.score, r.step
  from rollouts r join last l on l.policy = r.policy and l.step = r.step
),
placed as (
  select *, row_number() over (partition by policy order by prompt_id, response) as place from answers
)
select policy, instruction, response, finish_reason, score, step
from placed
where place <= $samples
order by trained, policy, place
