-- score: the reward of given responses under given principles, rendered and cut as in training (`salmon score`).
-- In:  asked (ordinal, instruction, response), chosen (place, name, negated, text); the model `reward`.
-- Out: one row per response; null where it does not fit into the model's context.
with shown as (
  select array_agg(named_struct('name', name, 'negated', negated, 'text', text, 'score', cast(null as double))
      order by place) as principles
  from chosen
)
select ordinal,
  reward('reward', render($template, named_struct(
    'instruction', truncate_tokens('reward', instruction, $max_query_tokens, 'left'),
    'response', truncate_tokens('reward', trim(response), $max_response_tokens, 'right'),
    'principles', principles))) as score
from asked cross join shown
order by ordinal
