-- negation_consistency: does a label turn when its principle is negated?
-- In:  preferences, kept ones that a principle decided; evaluations, for the reward model.
-- Out: principle; written and negated (labels that it decided as written, and negated); compared (twos of labels of the same
--      responses, one under each form); turned (share of these that chose differently, 0 to 1; only label noise keeps it below 1);
--      accuracy and accuracy_negated (share of held-out pairs that the reward model ranks as it should, 0 to 1).
with shown as (
  select prompt_id, dominant, chosen, rejected, unnest(principles) as p from preferences where kept and rule is null
),
-- The two responses in the order of their texts, so that labels of the same two meet.
labels as (
  select dominant, prompt_id, least(chosen, rejected) as text_1, greatest(chosen, rejected) as text_2,
    p['negated'] as negated, chosen < rejected as first_won
  from shown
  where p['name'] = dominant
),
counted as (
  select dominant, prompt_id, text_1, text_2,
    count(*) filter (where not negated) as written, count(*) filter (where not negated and first_won) as written_first,
    count(*) filter (where negated) as negated, count(*) filter (where negated and first_won) as negated_first
  from labels
  group by dominant, prompt_id, text_1, text_2
),
turned as (
  select dominant, sum(written) as written, sum(negated) as negated, sum(written * negated) as compared,
    sum(written_first * (negated - negated_first) + (written - written_first) * negated_first) as turned
  from counted
  group by dominant
),
accuracy as (
  select principle, max(case subset when 'single' then value end) as written,
    max(case subset when 'negated' then value end) as negated
  from evaluations
  where what = 'reward' and metric = 'accuracy' and principle is not null
  group by principle
)
select t.dominant as principle, t.written, t.negated, t.compared,
  cast(t.turned as double) / nullif(t.compared, 0) as turned,
  a.written as accuracy, a.negated as accuracy_negated
from turned t left join accuracy a on a.principle = t.dominant
order by t.dominant
