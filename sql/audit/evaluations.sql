-- audit/evaluations: the accounts of table `evaluations`, as one stage made it.
-- In:  evaluations.  Out: per rule what was found and what must be.
select 'figures without cases that have a value' as rule, count(*) as found, 0 as expected
from evaluations where n <= 0 and value is not null
order by rule
