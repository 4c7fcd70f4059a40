-- evaluate:reward: does the reward model rank pairs it was not trained on as the judge did?
-- In:  preferences (split = test); the model `reward`. Labels are taken back from noise; rule-made ones are left out.
with scored as (
  select dominant,
    reward('reward', render($reward_template, named_struct('principles', principles,
      'instruction', truncate_tokens('reward', prompt, $max_query_tokens, 'left'),
      'response', truncate_tokens('reward', case when flipped then rejected else chosen end, $max_response_tokens, 'right')))) as better,
    reward('reward', render($reward_template, named_struct('principles', principles,
      'instruction', truncate_tokens('reward', prompt, $max_query_tokens, 'left'),
      'response', truncate_tokens('reward', case when flipped then chosen else rejected end, $max_response_tokens, 'right')))) as worse
  from preferences
  where split = 'test' and kept and rule is null
)
select 'judge_labels' as subset, dominant as principle, cast(better > worse as double) as hit
from scored
