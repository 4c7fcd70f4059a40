-- What the labels would be without one principle (docs/cookbook.md).
with labels as (
  select row_number() over () as label, dominant, principles from preferences where kept and rule is null
),
shown as (
  select label, dominant, unnest(principles) as p from labels
),
scored as (
  select label, max(case when p['name'] = dominant then p['score'] end) as with_it,
    max(case when p['name'] <> 'Concise' then p['score'] end) as highest,
    min(case when p['name'] <> 'Concise' then p['score'] end) as lowest
  from shown
  group by label
),
decided as (
  select label, with_it, case when highest > -lowest then highest else lowest end as without_it from scored
)
select case when coalesce(without_it, 0) = 0 then 'dropped' when with_it * without_it < 0 then 'turned' else 'the same' end as becomes,
  count(*) as labels
from decided
group by case when coalesce(without_it, 0) = 0 then 'dropped' when with_it * without_it < 0 then 'turned' else 'the same' end
order by labels desc
