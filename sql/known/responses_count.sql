-- How many of the rows of `responses` are known before the policy is asked.
-- In:  prompts, known_responses.
with drawn as (
  select *, row_number() over (order by uniform($seed, 'responses', prompt_id), prompt_id) as draw
  from prompts
  where split = 'train'
),
samples as (
  select unnest(range(0, $rounds * $samples)) as sample
)
select count(*) as total, count(k.prompt_id) as known
from drawn d cross join samples s
  left join known_responses k on k.prompt_id = d.prompt_id and k.instruction = d.instruction and k.sample = s.sample
where $prompts = 0 or d.draw <= $prompts + $test_prompts
