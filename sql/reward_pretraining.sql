-- reward_pretraining: human preferences under a generic rubric (optional; section 2 of the method).
-- In:  human_preferences (prompt, chosen, rejected).
-- Out: the two inputs of the reward model per row.
with cut as (
  select row_number() over (order by prompt, chosen, rejected) as row_id,
    truncate_tokens('sft', prompt, $max_query_tokens, 'left') as instruction,
    truncate_tokens('sft', chosen, $max_response_tokens, 'right') as chosen,
    truncate_tokens('sft', rejected, $max_response_tokens, 'right') as rejected
  from human_preferences
),
placed as (
  select *, row_number() over (order by uniform($seed, 'reward_pretraining', row_id), row_id) as draw from cut
)
select row_id,
  render($rubric_template, named_struct('instruction', instruction, 'response', chosen)) as chosen,
  render($rubric_template, named_struct('instruction', instruction, 'response', rejected)) as rejected
from placed
where $max_rows = 0 or draw <= $max_rows
order by row_id
