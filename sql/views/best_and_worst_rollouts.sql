-- best_and_worst_rollouts: what does the reward like, and what not? The ends of each policy's last step.
-- In:  rollouts.
-- Out: policy; step; which (best or worst); place (1 to 10, from the end); prompt_id, instruction, response; principles (in
--      the reward prompt); score (of the reward model); length_bonus, stop_penalty; reward (these together, shaped); kl (nats).
with last as (
  select policy, max(step) as step from rollouts group by policy
),
placed as (
  select r.*,
    row_number() over (partition by r.policy order by r.reward desc, r.prompt_id, r.response) as best,
    row_number() over (partition by r.policy order by r.reward, r.prompt_id, r.response) as worst
  from rollouts r join last l on l.policy = r.policy and l.step = r.step
),
ends as (
  select 'best' as which, best as place, * from placed where best <= 10
  union all
  select 'worst' as which, worst as place, * from placed where worst <= 10
)
select policy, step, which, place, prompt_id, instruction, response, principles, score, length_bonus, stop_penalty, reward, kl
from ends
order by policy, which, place
