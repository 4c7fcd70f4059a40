-- judgments: each pair under each principle, in both orders (section 1 of the method).
-- In:  pairs, principles, known_judgments (sql/known/judgments.sql); the model `judge`.
-- Out: rows of shards $first_shard to $end_shard - 1 of $shards, one shard after the other, with the shard's number.
--      score = logit(first answer token) - logit(second); score_ba with the sign turned, so that positive always
--      favours the first response. Rows of a pair stand together, so that their long common prefix is read once.
--      A judge's prompt beyond the model's context has no scores; its verdict is `unread`.
with sharded as (
  select *, cast(floor(uniform(0, 'shard', prompt_id) * $shards) as bigint) as shard from pairs where kept
),
wanted as (
  select p.*, c.name as principle, c.definition
  from sharded p cross join principles c
  where p.shard >= $first_shard and p.shard < $end_shard and array_has(c.sets, $judge_set)
),
known as (
  select * from known_judgments
  where cast(floor(uniform(0, 'shard', prompt_id) * $shards) as bigint) >= $first_shard
    and cast(floor(uniform(0, 'shard', prompt_id) * $shards) as bigint) < $end_shard
),
-- Only what no earlier version holds goes to the judge.
asked as (
  select w.*,
    truncate_tokens('judge', w.instruction, $max_query_tokens, 'left') as query,
    truncate_tokens('judge', w.response_1, $max_response_tokens, 'right') as output_1,
    truncate_tokens('judge', w.response_2, $max_response_tokens, 'right') as output_2
  from wanted w left anti join known k on k.prompt_id = w.prompt_id and k.instruction = w.instruction
    and k.response_1 = w.response_1 and k.response_2 = w.response_2 and k.principle = w.principle and k.definition = w.definition
),
judged as (
  select *,
    choice_logits('judge', render($judge_template, named_struct('instruction', query,
      'output_a', output_1, 'output_b', output_2, 'principle', principle, 'definition', definition)), $answers) as ab,
    choice_logits('judge', render($judge_template, named_struct('instruction', query,
      'output_a', output_2, 'output_b', output_1, 'principle', principle, 'definition', definition)), $answers) as ba
  from asked
),
scored as (
  select shard, prompt_id, instruction, language, split, sample_1, sample_2, response_1, response_2, principle,
    ab[1] - ab[2] as score_ab, ba[2] - ba[1] as score_ba
  from judged
  union all
  select w.shard, w.prompt_id, w.instruction, w.language, w.split, w.sample_1, w.sample_2, w.response_1, w.response_2, w.principle,
    k.score_ab, k.score_ba
  from wanted w join known k on k.prompt_id = w.prompt_id and k.instruction = w.instruction
    and k.response_1 = w.response_1 and k.response_2 = w.response_2 and k.principle = w.principle and k.definition = w.definition
)
select shard, prompt_id, instruction, language, split, sample_1, sample_2, response_1, response_2, principle,
  score_ab, score_ba,
  case when score_ab is null or score_ba is null then 'unread'
       when score_ab > 0 and score_ba > 0 then 'first'
       when score_ab < 0 and score_ba < 0 then 'second'
       else 'tie' end as verdict
from scored
order by shard, prompt_id, sample_1, sample_2, principle
