-- The training curves that the report draws: metrics, and the means of each step's rollouts.
-- In:  metrics, rollouts.
select stage, name, step, value
from (
  select stage, name, step, value
  from metrics
  where step > 0 and name in ('loss', 'accuracy', 'mean_token_accuracy', 'objective/rlhf_reward', 'objective/kl')
  union all
  select 'policy:' || policy, 'score', step + 1, avg(score) from rollouts group by policy, step
  union all
  select 'policy:' || policy, 'tokens', step + 1, avg(cast(array_length(response_ids) as double))
  from rollouts group by policy, step
)
order by stage, name, step
