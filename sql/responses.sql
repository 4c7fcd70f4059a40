-- responses: the SFT policy answers each prompt several times (section 1 of the method).
-- In:  prompts; the model `sft`.
-- Out: one row per prompt and sample. Samples are numbered over all rounds: round r has samples r*n .. r*n+n-1.
with drawn as (
  select *, row_number() over (order by uniform($seed, 'responses', prompt_id), prompt_id) as draw
  from prompts
  where split = 'train'
),
samples as (
  select unnest(range(0, $rounds * $samples)) as sample
),
asked as (
  select d.prompt_id, s.sample, render($chat_template, named_struct('instruction', d.instruction)) as prompt
  from drawn d cross join samples s
  where ($prompts = 0 or d.draw <= $prompts + $test_prompts)
    and cast(floor(uniform(0, 'shard', d.prompt_id) * $shards) as bigint) = $shard
),
answered as (
  select prompt_id, sample,
    generate('sft', prompt, named_struct(
      'temperature', $temperature, 'top_p', $top_p, 'max_tokens', $max_tokens, 'stop', $stop,
      'seed', $seed, 'row', 'responses/' || prompt_id || '/' || sample)) as answer
  from asked
),
cut as (
  select prompt_id, sample, answer, btrim(answer['response'], E' \t\r\n') as response
  from answered
)
select prompt_id, sample, response, answer['tokens'] as tokens, answer['finish_reason'] as finish_reason,
  answer['logprob'] as logprob, drop_reason is null as kept, drop_reason
from (
  select *,
    case
      when answer['finish_reason'] = 'prompt_too_long' then 'prompt_too_long'
      when character_length(response) < $min_chars then 'too_short'
      when $drop_unfinished and answer['finish_reason'] = 'length' then 'unfinished'
    end as drop_reason
  from cut
)
order by prompt_id, sample
