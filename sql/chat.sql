-- chat: one answer to one prompt, in the layout that the model was trained in (`salmon chat`).
-- In:  the model `policy`. Seed and turn decide every draw.
with asked as (
  select render($chat_template, named_struct('instruction', $instruction)) as prompt, 'chat/' || $turn as row_id
),
answered as (
  select generate('policy', prompt, named_struct('temperature', $temperature, 'top_p', $top_p,
    'max_tokens', $max_tokens, 'stop', $stop, 'seed', $seed, 'row', row_id)) as answer
  from asked
)
select trim(answer['response']) as response, answer['finish_reason'] as finish_reason
from answered
