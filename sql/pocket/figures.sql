-- The demo's figures at a glance.
-- In:  evaluations.
select what, subset, metric,
  max(case when principle is null then round(value, 3) end) as "all",
  round(min(case when principle is not null then value end), 3) as lowest,
  first_value(principle order by case when principle is null then 2.0 else value end) as lowest_principle,
  sum(case when principle is null then n end) as n
from evaluations
where what in ('judge', 'reward')
group by what, subset, metric
order by what, subset
