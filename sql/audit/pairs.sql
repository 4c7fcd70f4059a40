-- audit/pairs: the accounts of table `pairs`.
-- In:  pairs, responses.  Out: per rule what was found and what must be.
with rounds as (
  select *, sample / $samples as round from responses
),
possible as (
  select a.prompt_id, a.round, a.sample as sample_1, b.sample as sample_2
  from rounds a join rounds b on a.prompt_id = b.prompt_id and a.round = b.round
  where a.sample < b.sample and a.kept and b.kept and a.response <> b.response
)
select 'kept pairs, which are two different kept responses of one round' as rule,
  (select count(*) from pairs where kept) as found, (select count(*) from possible) as expected
union all
select 'kept pairs whose responses are not a pair of table responses', count(*), 0
from (select * from pairs where kept) k left anti join possible p
  on p.prompt_id = k.prompt_id and p.sample_1 = k.sample_1 and p.sample_2 = k.sample_2
union all
select 'dropped rows, one for each round without a pair', (select count(*) from pairs where not kept),
  (select count(*) from (select distinct prompt_id, round from rounds))
  - (select count(*) from (select distinct prompt_id, round from possible))
union all
select 'rows that are kept with a drop_reason, or dropped without', count(*), 0
from pairs where kept <> (drop_reason is null)
order by rule
