-- drift: what is different between two runs, which are open as `a` and `b`?
-- In:  the views order_flips, dominant_principles, label_noise, negation_consistency and reward_kl of both.
-- Out: figure and the name it is of (a principle, a policy); its value in a and in b (NULL where a run has none, units as in
--      those views); change (b - a). Of a policy it is the mean of its last step.
with figures as (
  select 'a' as run, 'judge: flip rate' as figure, principle as name, flip_rate as value from a.order_flips
  union all select 'b', 'judge: flip rate', principle, flip_rate from b.order_flips
  union all select 'a', 'judge: lean', principle, lean from a.order_flips
  union all select 'b', 'judge: lean', principle, lean from b.order_flips
  union all select 'a', 'labels: share decided', coalesce(dominant, 'a rule'), share from a.dominant_principles
  union all select 'b', 'labels: share decided', coalesce(dominant, 'a rule'), share from b.dominant_principles
  union all select 'a', 'labels: margin', coalesce(dominant, 'a rule'), margin from a.dominant_principles
  union all select 'b', 'labels: margin', coalesce(dominant, 'a rule'), margin from b.dominant_principles
  union all select 'a', 'labels: noise', decided_by || ', ' || split, flip_rate from a.label_noise
  union all select 'b', 'labels: noise', decided_by || ', ' || split, flip_rate from b.label_noise
  union all select 'a', 'reward: accuracy', principle, accuracy from a.negation_consistency
  union all select 'b', 'reward: accuracy', principle, accuracy from b.negation_consistency
  union all select 'a', 'reward: accuracy, negated', principle, accuracy_negated from a.negation_consistency
  union all select 'b', 'reward: accuracy, negated', principle, accuracy_negated from b.negation_consistency
  union all select 'a', 'policy: score', policy, last_value(score order by step) from a.reward_kl group by policy
  union all select 'b', 'policy: score', policy, last_value(score order by step) from b.reward_kl group by policy
  union all select 'a', 'policy: kl', policy, last_value(kl order by step) from a.reward_kl group by policy
  union all select 'b', 'policy: kl', policy, last_value(kl order by step) from b.reward_kl group by policy
),
compared as (
  select figure, name, max(case run when 'a' then value end) as a, max(case run when 'b' then value end) as b
  from figures
  group by figure, name
)
select figure, name, a, b, b - a as change
from compared
order by figure, name
