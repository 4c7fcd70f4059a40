-- ppo_prompts: the prompts that rollouts answer (2-256 tokens in the published recipe).
-- In:  prompts.
-- The begin token and one token of a response must fit into the model's context too.
select prompt_id, instruction, kind, length_bonus
from prompts
where split = 'train' and count_tokens('sft', instruction) between $min_prompt_tokens and $max_prompt_tokens
  and count_tokens('sft', render($chat_template, named_struct('instruction', instruction))) + 2 <= $context
order by prompt_id
