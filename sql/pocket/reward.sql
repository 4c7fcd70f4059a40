-- evaluate:reward in the pocket world: pairwise accuracy against the exact checkers on pairs kept aside.
-- In:  pairs (split = test), wordings (subset, principle, negated, text), combinations (id, name, negated, text);
--      the model `reward`. A combination counts where all its principles that differ point the same way.
with tested as (
  select row_number() over (order by prompt_id, sample_1, sample_2) as pair, * from pairs where split = 'test' and kept
),
single_cases as (
  select t.pair, w.subset, w.principle, t.instruction, t.response_1, t.response_2,
    make_array(named_struct('text', w.text)) as principles,
    (pocket_value(t.instruction, t.response_1, w.principle) - pocket_value(t.instruction, t.response_2, w.principle))
      * case when w.negated then -1 else 1 end as difference
  from tested t cross join wordings w
),
differences as (
  select t.pair, c.id, c.place, c.text, t.instruction, t.response_1, t.response_2,
    signum(cast(pocket_value(t.instruction, t.response_1, c.name) - pocket_value(t.instruction, t.response_2, c.name) as double))
      * case when c.negated then -1 else 1 end as direction
  from tested t cross join combinations c
),
combined_cases as (
  select pair, 'held_out_combination' as subset, cast(null as varchar) as principle, instruction, response_1, response_2,
    array_agg(named_struct('text', text) order by place) as principles,
    case when min(direction) >= 0 then max(direction) when max(direction) <= 0 then min(direction) else 0.0 end as difference
  from differences
  group by pair, id, instruction, response_1, response_2
),
cases as (
  select pair, subset, principle, instruction, response_1, response_2, principles, cast(difference as double) as difference
  from single_cases where difference <> 0
  union all
  select pair, subset, principle, instruction, response_1, response_2, principles, difference
  from combined_cases where difference <> 0
),
scored as (
  select subset, principle, difference,
    reward('reward', render($reward_template,
      named_struct('instruction', instruction, 'response', response_1, 'principles', principles))) as reward_1,
    reward('reward', render($reward_template,
      named_struct('instruction', instruction, 'response', response_2, 'principles', principles))) as reward_2
  from (select * from cases order by pair, subset, principle)
)
select subset, principle, cast((reward_1 > reward_2) = (difference > 0) and reward_1 <> reward_2 as double) as hit
from scored
