-- accuracy: the share of pairs that the reward model ranks as the labels do, by subset and principle and over all.
-- In:  hits (subset, principle, hit: null where a prompt is beyond the model's context).
select 'reward' as what, principle, subset, 'accuracy' as metric, avg(hit) as value, count(hit) as n
from hits where principle is not null group by subset, principle
union all
select 'reward', null, subset, 'accuracy', avg(hit), count(hit) from hits group by subset
order by subset, principle nulls first
