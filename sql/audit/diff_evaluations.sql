-- audit/diff_evaluations: figures of two runs side by side, where they differ.
-- In:  evaluations_before, evaluations_after.
with a as (
  select what, coalesce(principle, '') as principle, coalesce(subset, '') as subset, metric, avg(value) as value
  from evaluations_before group by 1, 2, 3, 4
),
b as (
  select what, coalesce(principle, '') as principle, coalesce(subset, '') as subset, metric, avg(value) as value
  from evaluations_after group by 1, 2, 3, 4
)
select coalesce(a.what, b.what) as what,
  concat_ws(' ', coalesce(a.metric, b.metric), nullif(coalesce(a.subset, b.subset), ''), nullif(coalesce(a.principle, b.principle), '')) as name,
  a.value as before, b.value as after
from a full outer join b
  on a.what = b.what and a.principle = b.principle and a.subset = b.subset and a.metric = b.metric
where a.value is distinct from b.value
order by 1, 2
