-- known_demonstrations: what earlier versions of `demonstrations` hold, by the same base, template, seed and settings.
-- In:  earlier_demonstrations.
-- Out: one row per instruction and sample.
select prompt_id, instruction, sample, thoughts, response, kept, drop_reason
from (
  select *, row_number() over (partition by prompt_id, instruction, sample order by version) as place
  from earlier_demonstrations
)
where place = 1
