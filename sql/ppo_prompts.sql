-- ppo_prompts: the prompts that rollouts answer (2-256 tokens in the published recipe).
-- In:  prompts.
select prompt_id, instruction, kind, length_bonus
from prompts
where split = 'train' and count_tokens('sft', instruction) between $min_prompt_tokens and $max_prompt_tokens
order by prompt_id
