-- Every row of the tables that keep or drop rows, by reason.
-- In:  demonstrations, responses, pairs, preferences.
select "table", reason, n
from (
  select 1 as place, 'demonstrations' as "table", coalesce(drop_reason, 'kept') as reason, count(*) as n
  from demonstrations group by drop_reason
  union all
  select 2, 'responses', coalesce(drop_reason, 'kept'), count(*) from responses group by drop_reason
  union all
  select 3, 'pairs', coalesce(drop_reason, 'kept'), count(*) from pairs group by drop_reason
  union all
  select 4, 'preferences', coalesce(drop_reason, 'kept'), count(*) from preferences group by drop_reason
)
order by place, reason <> 'kept', reason
