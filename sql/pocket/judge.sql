-- evaluate:judge in the pocket world: does the judge agree with the exact checkers where the two responses differ?
-- In:  judgments. The verdict is the sign of the mean over both orders.
with checked as (
  select principle, score_ab + score_ba as score,
    pocket_value(instruction, response_1, principle) - pocket_value(instruction, response_2, principle) as difference
  from judgments
),
hits as (
  select principle, cast((score > 0) = (difference > 0) and score <> 0 as double) as hit
  from checked where difference <> 0
)
select 'judge' as what, principle, cast(null as varchar) as subset, 'agreement' as metric, avg(hit) as value, count(*) as n
from hits group by principle
union all
-- The mean over principles, so that none is drowned by those that differ more often.
select 'judge', null, null, 'agreement', list_sum(array_agg(value order by principle)) / count(*), sum(n)
from (select principle, avg(hit) as value, count(*) as n from hits group by principle)
order by principle nulls first
