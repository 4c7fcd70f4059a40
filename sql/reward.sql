-- reward: the principle-following reward model learns from the labelled pairs (section 2 of the method).
-- In:  preferences.
-- Out: the two inputs of the reward model per row: response first, then instruction, then the principles.
with cut as (
  select *,
    truncate_tokens('sft', prompt, $max_query_tokens, 'left') as query,
    truncate_tokens('sft', chosen, $max_response_tokens, 'right') as good,
    truncate_tokens('sft', rejected, $max_response_tokens, 'right') as bad
  from preferences
  where kept and split = 'train'
)
select
  render($reward_template, named_struct('instruction', query, 'response', good, 'principles', principles)) as chosen,
  render($reward_template, named_struct('instruction', query, 'response', bad, 'principles', principles)) as rejected
from cut
order by prompt_id, pass, chosen, rejected
