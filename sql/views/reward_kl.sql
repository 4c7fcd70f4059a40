-- reward_kl: what does each policy gain, and how far does it move for that?
-- In:  rollouts.
-- Out: one row per policy and PPO step, from 0; rollouts; score (mean output of the reward model); reward (mean, shaped, before
--      KL); kl (mean estimate per response, nats); tokens (mean length of a response); stopped (share that ended by itself, 0 to 1).
select policy, step, count(*) as rollouts, avg(score) as score, avg(reward) as reward, avg(kl) as kl,
  avg(cast(cardinality(response_ids) as double)) as tokens,
  avg(case finish_reason when 'stop' then 1.0 else 0.0 end) as stopped
from rollouts
group by policy, step
order by policy, step
