-- audit/diff_metrics: the last value of every training metric of two runs side by side, where they differ.
-- In:  metrics_before, metrics_after.
with a as (
  select m.stage, m.name, last_value(m.value order by m.step) as last from metrics_before m group by m.stage, m.name
),
b as (
  select m.stage, m.name, last_value(m.value order by m.step) as last from metrics_after m group by m.stage, m.name
)
select coalesce(a.stage, b.stage) as what, coalesce(a.name, b.name) as name, a.last as before, b.last as after
from a full outer join b on a.stage = b.stage and a.name = b.name
where a.last is distinct from b.last
order by 1, 2
