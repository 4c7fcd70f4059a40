-- rollouts: one PPO step's prompts, principles, responses and shaped rewards (section 3 of the method).
-- In:  ppo_prompts, policy_principles (what this policy may be shown), boosts; the models `policy` and `reward`;
--      ppo_step, one row that says where the trainer stands: step, first_mean, first_deviation (null in the first step).
--      It is a table and not parameters, so that the statement is planned once for all steps.
-- Out: one row per rollout, in slot order. The trainer adds log-probabilities, values and advantages.
-- Slot i of step s is position s*batch+i of an endless sequence of epochs, each in an order of its own.
with slots as (
  select slot, step, first_mean, first_deviation,
    (step * $batch_size + slot) / n as epoch, (step * $batch_size + slot) % n as place
  from (select unnest(range(0, $batch_size)) as slot)
    cross join (select count(*) as n from ppo_prompts)
    cross join ppo_step
),
epochs as (
  select epoch, p.*,
    row_number() over (partition by epoch order by uniform($seed, 'ppo', $policy, epoch, p.prompt_id), p.prompt_id) - 1 as place
  from (select distinct epoch from slots) cross join ppo_prompts p
),
batch as (
  select s.slot, s.step, s.first_mean, s.first_deviation, e.prompt_id, e.instruction, e.kind, e.length_bonus as multiplier
  from slots s join epochs e on e.epoch = s.epoch and e.place = s.place
),
-- Principles: those that are always there, and draws by weight without replacement (smallest exponential
-- waiting time at rate = weight first). A boost adds to the weight for prompts of its kind.
boosted as (
  select slot, ordinal, sum(boost) as boost
  from (
    select b.slot, c.ordinal, o.weight as boost
    from batch b cross join policy_principles c join boosts o on o.kind = b.kind and array_has(c.tags, o.tag)
  )
  group by slot, ordinal
),
raced as (
  select b.slot, c.ordinal, c.name, c.negated, c.text, c.always,
    case when c.always then 0.0
         else -ln(1 - uniform($seed, 'principles', $policy, b.step, b.slot, c.name)) / (c.weight + coalesce(o.boost, 0.0))
    end as wait
  from batch b cross join policy_principles c
    left join boosted o on o.slot = b.slot and o.ordinal = c.ordinal
  where c.always or c.weight + coalesce(o.boost, 0.0) > 0
),
placed as (
  select *, row_number() over (partition by slot, always order by wait, ordinal) as place from raced
),
shown as (
  select slot,
    array_agg(named_struct('name', name, 'negated', negated, 'text', text, 'score', cast(null as double))
      order by always desc, place) as principles
  from placed
  where always or place <= $draw
  group by slot
),
asked as (
  select b.*, s.principles, render($chat_template, named_struct('instruction', b.instruction)) as prompt
  from batch b join shown s on s.slot = b.slot
),
answered as (
  select *,
    generate('policy', prompt, named_struct(
      'temperature', $temperature, 'top_p', $top_p, 'max_tokens', $max_tokens, 'stop', $stop,
      'seed', $seed, 'row', 'rollouts/' || $policy || '/' || step || '/' || slot)) as answer
  from asked
),
scored as (
  select *,
    reward('reward', render($reward_template, named_struct(
      'instruction', truncate_tokens('reward', instruction, $max_query_tokens, 'left'),
      'response', truncate_tokens('reward', btrim(answer['response'], E' \t\r\n'), $max_response_tokens, 'right'),
      'principles', principles))) as score
  from answered
),
shaped as (
  select *,
    $length_bonus * least(multiplier * answer['tokens'] / $length_bonus_tokens, $length_bonus_cap) as length_bonus,
    case when answer['finish_reason'] = 'stop' then 0.0 else -$stop_penalty end as stop_penalty,
    -- Normalisation is fixed by the first step, which uses this batch's own mean and deviation. Sums
    -- go in slot order, so that they have the same bits on any number of partitions.
    case when $normalize then coalesce(first_mean, avg(score) over whole) else 0.0 end as score_mean,
    case when $normalize then coalesce(first_deviation, stddev_pop(score) over whole + 1e-4) else 1.0 end as score_deviation
  from scored
  window whole as (order by slot rows between unbounded preceding and unbounded following)
)
select slot, prompt_id, instruction, principles, prompt, answer['ids'] as response_ids,
  btrim(answer['response'], E' \t\r\n') as response, answer['finish_reason'] as finish_reason, score, length_bonus, stop_penalty,
  (score - score_mean) / score_deviation + length_bonus + stop_penalty as reward, score_mean, score_deviation
from shaped
order by slot
