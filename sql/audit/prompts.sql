-- audit/prompts: the accounts of table `prompts`.
-- In:  prompts.  Out: per rule what was found and what must be.
select 'prompts whose prompt_id is there twice' as rule, count(*) - count(distinct prompt_id) as found, 0 as expected from prompts
union all
select 'prompts whose split is neither train nor test', count(*), 0 from prompts where split not in ('train', 'test')
order by rule
