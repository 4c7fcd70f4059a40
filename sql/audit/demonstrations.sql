-- audit/demonstrations: the accounts of table `demonstrations`.
-- In:  demonstrations, prompts.  Out: per rule what was found and what must be.
with train as (
  select count(*) as n from prompts where split = 'train'
)
select 'rows, which are chosen training prompts x samples' as rule,
  (select count(*) from demonstrations) as found,
  (select case when $prompts = 0 then n else least(n, $prompts) end from train) * $samples as expected
union all
select 'rows whose prompt and sample are there twice', (select count(*) from demonstrations)
  - (select count(*) from (select distinct prompt_id, sample from demonstrations)), 0
union all
select 'rows of prompts that are not in table prompts', count(*), 0
from demonstrations d left anti join prompts p on p.prompt_id = d.prompt_id
union all
select 'rows that are kept with a drop_reason, or dropped without', count(*), 0
from demonstrations where kept <> (drop_reason is null)
order by rule
