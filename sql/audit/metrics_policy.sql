-- audit/metrics_policy: the prompts of a policy's stage.
-- In:  metrics, prompts.  Out: per rule what was found and what must be.
select 'prompts used or left out, which are all training prompts' as rule,
  (select cast(sum(value) as bigint) from metrics where step = 0 and name in ('prompts/used', 'prompts/left_out')) as found,
  (select count(*) from prompts where split = 'train') as expected
order by rule
