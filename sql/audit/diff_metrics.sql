-- audit/diff_metrics: the last value of every training metric of two runs side by side, where they differ.
-- In:  metrics_before, metrics_after.
with a as (
  select stage, name, last_value(value order by step) as value from metrics_before group by stage, name
),
b as (
  select stage, name, last_value(value order by step) as value from metrics_after group by stage, name
)
select coalesce(a.stage, b.stage) as what, coalesce(a.name, b.name) as name, a.value as before, b.value as after
from a full outer join b on a.stage = b.stage and a.name = b.name
where a.value is distinct from b.value
order by 1, 2
