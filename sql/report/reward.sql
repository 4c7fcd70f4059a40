-- The reward model's accuracy by subset and principle; a null principle is over all.
-- In:  evaluations.
select subset, principle, value, n
from evaluations
where what = 'reward' and metric = 'accuracy'
order by subset, principle nulls first
