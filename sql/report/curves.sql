-- The training curves that the report draws.
-- In:  metrics.
select stage, name, step, value
from metrics
where step > 0 and name in ('loss', 'accuracy', 'mean_token_accuracy', 'objective/scores', 'objective/rlhf_reward',
  'objective/kl', 'objective/entropy')
order by stage, name, step
