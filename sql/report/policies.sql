-- What each policy does on test prompts.
-- In:  evaluations.
select substr(what, 8) as policy, metric, principle, value, n
from evaluations
where what like 'policy:%'
order by what <> 'policy:sft', what, metric, principle
