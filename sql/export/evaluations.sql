-- What was measured of one model, for its card.
-- In:  evaluations.
select what, metric, subset, principle, value, n
from evaluations
where what = $what or what = $also
order by what, metric, subset, principle nulls first
