-- audit/preferences: the accounts of table `preferences`.
-- In:  preferences, judgments.  Out: per rule what was found and what must be.
select 'rows, which are judged pairs x passes' as rule,
  (select count(*) from preferences) as found,
  (select count(*) from (select distinct prompt_id, sample_1, sample_2 from judgments
    where array_has($principles_names, principle))) * $passes as expected
union all
select 'rows of prompts without a judgment', count(*), 0
from preferences f left anti join judgments j on j.prompt_id = f.prompt_id
union all
select 'rows that are kept with a drop_reason, or dropped without', count(*), 0
from preferences where kept <> (drop_reason is null)
order by rule
