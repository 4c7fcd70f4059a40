-- audit/rollouts: the accounts of table `rollouts`, as one policy made it.
-- In:  rollouts, prompts.  Out: per rule what was found and what must be.
select 'rows, which are steps x batch size' as rule,
  (select count(*) from rollouts) as found,
  (select coalesce(max(step) + 1, 0) from rollouts) * $batch_size as expected
union all
select 'steps without exactly batch_size rows', count(*), 0
from (select step from rollouts group by step having count(*) <> $batch_size)
union all
select 'rows of prompts that are not in table prompts', count(*), 0
from rollouts r left anti join prompts p on p.prompt_id = r.prompt_id
order by rule
