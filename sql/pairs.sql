-- pairs: two different answers to one prompt; prompts that have none say why.
-- In:  responses, prompts.
-- Out: within a round every two kept and different samples; test pairs come from prompts of their own.
with rounds as (
  select *, sample / $samples as round from responses
),
drawn as (
  select prompt_id, row_number() over (order by uniform($seed, 'test', prompt_id), prompt_id) as draw
  from (select distinct prompt_id from responses)
),
kept_pairs as (
  select a.prompt_id, a.round, a.sample as sample_1, b.sample as sample_2,
    a.response as response_1, b.response as response_2
  from rounds a join rounds b on a.prompt_id = b.prompt_id and a.round = b.round and a.sample < b.sample
  where a.kept and b.kept and a.response <> b.response
),
counted as (
  select prompt_id, round, sum(case when kept then 1 else 0 end) as n from rounds group by prompt_id, round
),
without as (
  select c.prompt_id, c.round, case c.n when 0 then 'no_response' when 1 then 'one_response' else 'identical' end as drop_reason
  from counted c left anti join kept_pairs k on k.prompt_id = c.prompt_id and k.round = c.round
),
rows_out as (
  select prompt_id, round, sample_1, sample_2, response_1, response_2, true as kept, cast(null as varchar) as drop_reason from kept_pairs
  union all
  select prompt_id, round, null, null, null, null, false, drop_reason from without
)
select r.prompt_id, p.instruction, p.language,
  case when d.draw <= $test_prompts then 'test' else 'train' end as split,
  r.sample_1, r.sample_2, r.response_1, r.response_2, r.kept, r.drop_reason
from rows_out r join prompts p on p.prompt_id = r.prompt_id join drawn d on d.prompt_id = r.prompt_id
order by r.prompt_id, r.round, r.sample_1, r.sample_2
