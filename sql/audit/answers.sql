-- audit/answers: the accounts of table `answers`, as one evaluation made it.
-- In:  answers, prompts.  Out: per rule what was found and what must be.
with test as (
  select count(*) as n from prompts where split = 'test'
)
select 'rows, which are chosen test prompts x samples' as rule,
  (select count(*) from answers) as found,
  (select case when $prompts = 0 then n else least(n, $prompts) end from test) * $samples as expected
union all
select 'rows whose prompt and sample are there twice', (select count(*) from answers)
  - (select count(*) from (select distinct prompt_id, sample from answers)), 0
union all
select 'rows of prompts that are not in table prompts', count(*), 0
from answers a left anti join prompts p on p.prompt_id = a.prompt_id
union all
select 'rows without kl, or with one for a prompt that is too long', count(*), 0
from answers where (kl is null) <> (finish_reason = 'prompt_too_long')
order by rule
