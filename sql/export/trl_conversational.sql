-- Kept preferences as TRL's conversational preference data: prompt and answers as messages
-- (`salmon export preferences --layout trl-conversational`).
-- In:  preferences, in the order in which they were written.
select
  make_array(named_struct('role', 'user', 'content', prompt)) as prompt,
  make_array(named_struct('role', 'assistant', 'content', chosen)) as chosen,
  make_array(named_struct('role', 'assistant', 'content', rejected)) as rejected,
  prompt_id, pass, principles, dominant, margin, rule, flipped
from preferences
where kept and split = $split
