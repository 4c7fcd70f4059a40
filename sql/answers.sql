-- answers: a policy answers test prompts; evaluation aggregates these rows.
-- In:  prompts (split = test); the models `policy` and `sft`.
-- Out: one row per prompt and sample, of shards $first_shard to $end_shard - 1 of $shards, one shard after the other, with
--      the shard's number. kl = log p - log q of the response against the SFT policy, nats. A prompt beyond the model's
--      context has an empty response and no kl; its finish_reason is prompt_too_long.
with drawn as (
  select *, row_number() over (order by uniform($seed, 'evaluate', prompt_id), prompt_id) as draw,
    cast(floor(uniform(0, 'shard', prompt_id) * $shards) as bigint) as shard
  from prompts where split = 'test'
),
asked as (
  select shard, prompt_id, instruction, sample, render($chat_template, named_struct('instruction', instruction)) as prompt
  from drawn cross join (select unnest(range(0, $samples)) as sample)
  where ($prompts = 0 or draw <= $prompts) and shard >= $first_shard and shard < $end_shard
),
answered as (
  select *, generate('policy', prompt, named_struct('temperature', $temperature, 'max_tokens', $max_tokens,
    'stop', $stop, 'seed', $seed, 'row', 'evaluate/' || prompt_id || '/' || sample)) as answer
  from asked
),
compared as (
  select *,
    logprobs('policy', prompt, answer['ids']) as logprobs,
    logprobs('sft', prompt, answer['ids']) as ref_logprobs
  from answered
)
select shard, $policy as policy, prompt_id, instruction, sample, btrim(answer['response'], E' \t\r\n') as response, answer['tokens'] as tokens,
  answer['finish_reason'] as finish_reason, list_sum(logprobs) - list_sum(ref_logprobs) as kl
from compared
order by shard, prompt_id, sample
