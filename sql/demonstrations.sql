-- demonstrations: the base model answers with the rules and exemplars in sight (section 0 of the method).
-- In:  prompts; the model `base`. The template knows the library's rules and exemplars; `pick` lets it draw one.
-- Out: one row per prompt and sample, of shards $first_shard to $end_shard - 1 of $shards, one shard after the other, with
--      the shard's number: the answer after post-processing, and whether SFT trains on it or why not.
with drawn as (
  select *, row_number() over (order by uniform($seed, 'demonstrations', prompt_id), prompt_id) as draw,
    cast(floor(uniform(0, 'shard', prompt_id) * $shards) as bigint) as shard
  from prompts
  where split = 'train'
),
chosen as (
  select * from drawn
  where ($prompts = 0 or draw <= $prompts)
    and shard >= $first_shard and shard < $end_shard
),
wanted as (
  select shard, prompt_id, instruction, sample from chosen cross join (select unnest(range(0, $samples)) as sample)
),
known as (
  select * from known_demonstrations
  where cast(floor(uniform(0, 'shard', prompt_id) * $shards) as bigint) >= $first_shard
    and cast(floor(uniform(0, 'shard', prompt_id) * $shards) as bigint) < $end_shard
),
-- Only what no earlier version holds is sampled.
asked as (
  select w.shard, w.prompt_id, w.instruction, w.sample,
    render($self_align_template, named_struct('instruction', w.instruction,
      'pick', cast(floor(uniform($seed, 'exemplar', w.prompt_id, w.sample) * 1000000) as bigint))) as prompt
  from wanted w left anti join known k
    on k.prompt_id = w.prompt_id and k.instruction = w.instruction and k.sample = w.sample
),
answered as (
  select shard, prompt_id, instruction, sample,
    generate('base', prompt, named_struct(
      'temperature', $temperature, 'top_p', $top_p, 'max_tokens', $max_tokens, 'stop', $stop,
      'seed', $seed, 'row', 'demonstrations/' || prompt_id || '/' || sample)) as answer
  from asked
),
-- Thoughts end at the marker; an answer without the marker has none.
parted as (
  select shard, prompt_id, instruction, sample, answer,
    case when $answer_marker <> '' and strpos(answer['response'], $answer_marker) > 0
         then btrim(substr(answer['response'], 1, strpos(answer['response'], $answer_marker) - 1), E' \t\r\n') end as thoughts,
    case when $answer_marker <> '' and strpos(answer['response'], $answer_marker) > 0
         then substr(answer['response'], strpos(answer['response'], $answer_marker) + character_length($answer_marker))
         else answer['response'] end as body
  from answered
),
cut as (
  select shard, prompt_id, instruction, sample, answer, thoughts, btrim(cut_repetition(cut_at(body, $stop)), E' \t\r\n') as response
  from parted
)
select shard, prompt_id, instruction, sample, thoughts, response, drop_reason is null as kept, drop_reason
from (
  select *,
    case
      when answer['finish_reason'] = 'prompt_too_long' then 'prompt_too_long'
      when response = '' then 'empty'
      when answer['finish_reason'] = 'length' then 'unfinished'
      when character_length(response) < $min_chars then 'too_short'
      when contains_any(response, $leaks) then 'leaked_rules'
    end as drop_reason
  from cut
)
union all
select w.shard, w.prompt_id, w.instruction, w.sample, k.thoughts, k.response, k.kept, k.drop_reason
from wanted w join known k on k.prompt_id = w.prompt_id and k.instruction = w.instruction and k.sample = w.sample
order by shard, prompt_id, sample
