-- responses: the SFT policy answers each prompt several times (section 1 of the method).
-- In:  prompts, known_responses (sql/known/responses.sql); the model `sft`.
-- Out: one row per prompt and sample, of shards $first_shard to $end_shard - 1 of $shards, one shard after the other, with
--      the shard's number. Samples are numbered over all rounds: round r has samples r*n .. r*n+n-1.
with drawn as (
  select *, row_number() over (order by uniform($seed, 'responses', prompt_id), prompt_id) as draw,
    cast(floor(uniform(0, 'shard', prompt_id) * $shards) as bigint) as shard
  from prompts
  where split = 'train'
),
samples as (
  select unnest(range(0, $rounds * $samples)) as sample
),
wanted as (
  select d.shard, d.prompt_id, d.instruction, s.sample
  from drawn d cross join samples s
  where ($prompts = 0 or d.draw <= $prompts + $test_prompts)
    and d.shard >= $first_shard and d.shard < $end_shard
),
known as (
  select * from known_responses
  where cast(floor(uniform(0, 'shard', prompt_id) * $shards) as bigint) >= $first_shard
    and cast(floor(uniform(0, 'shard', prompt_id) * $shards) as bigint) < $end_shard
),
-- Only what no earlier version holds is sampled.
asked as (
  select w.shard, w.prompt_id, w.sample, render($chat_template, named_struct('instruction', w.instruction)) as prompt
  from wanted w left anti join known k
    on k.prompt_id = w.prompt_id and k.instruction = w.instruction and k.sample = w.sample
),
answered as (
  select shard, prompt_id, sample,
    generate('sft', prompt, named_struct(
      'temperature', $temperature, 'top_p', $top_p, 'max_tokens', $max_tokens, 'stop', $stop,
      'seed', $seed, 'row', 'responses/' || prompt_id || '/' || sample)) as answer
  from asked
),
cut as (
  select shard, prompt_id, sample, btrim(answer['response'], E' \t\r\n') as response, answer['tokens'] as tokens,
    answer['finish_reason'] as finish_reason, answer['logprob'] as logprob
  from answered
  union all
  select w.shard, w.prompt_id, w.sample, k.response, k.tokens, k.finish_reason, k.logprob
  from wanted w join known k on k.prompt_id = w.prompt_id and k.instruction = w.instruction and k.sample = w.sample
)
select shard, prompt_id, sample, response, tokens, finish_reason, logprob, drop_reason is null as kept, drop_reason
from (
  select *,
    case
      when finish_reason = 'prompt_too_long' then 'prompt_too_long'
      when character_length(response) < $min_chars then 'too_short'
      when $drop_unfinished and finish_reason = 'length' then 'unfinished'
    end as drop_reason
  from cut
)
order by shard, prompt_id, sample
