-- audit/judgments: the accounts of table `judgments`.
-- In:  judgments, pairs.  Out: per rule what was found and what must be.
select 'rows, which are kept pairs x principles of the judge''s set' as rule,
  (select count(*) from judgments) as found,
  (select count(*) from pairs where kept) * $principles_count as expected
union all
select 'rows whose pair and principle are there twice', (select count(*) from judgments)
  - (select count(*) from (select distinct prompt_id, sample_1, sample_2, principle from judgments)), 0
union all
select 'rows of pairs that are not kept in table pairs', count(*), 0
from judgments j left anti join (select * from pairs where kept) p
  on p.prompt_id = j.prompt_id and p.sample_1 = j.sample_1 and p.sample_2 = j.sample_2
union all
select 'rows without a score that are not unread, or unread with both', count(*), 0
from judgments where (verdict = 'unread') <> (score_ab is null or score_ba is null)
order by rule
