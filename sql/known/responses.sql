-- known_responses: what earlier versions of `responses` hold, by the same policy, template, seed and settings.
-- In:  earlier_responses; earlier_prompts, the instructions each version answered.
-- Out: one row per instruction and sample.
select prompt_id, instruction, sample, response, tokens, finish_reason, logprob
from (
  select r.*, p.instruction,
    row_number() over (partition by r.prompt_id, p.instruction, r.sample order by r.version) as place
  from earlier_responses r join earlier_prompts p on p.version = r.version and p.prompt_id = r.prompt_id
)
where place = 1
