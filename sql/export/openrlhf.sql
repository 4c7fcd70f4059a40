-- Kept preferences for OpenRLHF's reward and DPO trainers with --apply_chat_template: chosen and rejected are whole
-- conversations; prompt is the text alone, for its PPO trainer's --input_key (`salmon export preferences --layout openrlhf`).
-- In:  preferences, in the order in which they were written.
select
  make_array(named_struct('role', 'user', 'content', prompt), named_struct('role', 'assistant', 'content', chosen)) as chosen,
  make_array(named_struct('role', 'user', 'content', prompt), named_struct('role', 'assistant', 'content', rejected)) as rejected,
  prompt, prompt_id, pass, principles, dominant, margin, rule, flipped
from preferences
where kept and split = $split
