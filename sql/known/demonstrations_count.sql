-- How many of the rows of `demonstrations` are known before the base model is asked.
-- In:  prompts, known_demonstrations.
with drawn as (
  select *, row_number() over (order by uniform($seed, 'demonstrations', prompt_id), prompt_id) as draw
  from prompts
  where split = 'train'
)
select count(*) as total, count(k.prompt_id) as known
from drawn d cross join (select unnest(range(0, $samples)) as sample) s
  left join known_demonstrations k on k.prompt_id = d.prompt_id and k.instruction = d.instruction and k.sample = s.sample
where $prompts = 0 or d.draw <= $prompts
