-- preferences: judgments become labelled pairs under drawn principles (section 2 of the method).
-- In:  judgments, a part of them in which every pair is whole; variances (sql/variances.sql), over all of them; principles;
--      held_out (combinations kept out of training).
-- Out: one row per pair and pass, kept or with the reason why not. Every constant is a parameter. Texts join at the end:
--      what is drawn, sorted and grouped are ids and scores.
-- s_p = mean of both orders / variance_p where the orders agree, else 0.
with normalised as (
  select j.prompt_id, j.sample_1, j.sample_2, j.principle, j.verdict, c.definition, c.negative_definition,
    case when j.verdict in ('tie', 'unread') or coalesce(v.variance, 0) = 0 then 0.0
         else (j.score_ab + j.score_ba) / 2 / v.variance end as s
  from judgments j
    join principles c on c.name = j.principle
    left join variances v on v.principle = j.principle
  where array_has(c.sets, $aggregate_set)
),
-- How many principles a pass shows: geometric, drawn again above the maximum. Drawing again is the same as
-- inverting the distribution function on [0, F(maximum)).
counts as (
  select prompt_id, sample_1, sample_2, pass,
    1 + cast(floor(ln(1 - uniform($seed, 'count', pass, prompt_id, sample_1, sample_2)
        * (1 - power(1 - $geometric, least($max_principles, available)))) / ln(1 - $geometric)) as bigint) as principles
  from (select prompt_id, sample_1, sample_2, count(*) as available
        from normalised group by prompt_id, sample_1, sample_2)
    cross join (select unnest(range(0, $passes)) as pass)
),
drawn as (
  select n.*, k.pass, k.principles as count,
    row_number() over (
      partition by n.prompt_id, n.sample_1, n.sample_2, k.pass
      order by uniform($seed, 'principle', k.pass, n.prompt_id, n.sample_1, n.sample_2, n.principle), n.principle) as place,
    uniform($seed, 'negation', k.pass, n.prompt_id, n.sample_1, n.sample_2, n.principle) < $negation as negated
  from normalised n
    join counts k on k.prompt_id = n.prompt_id and k.sample_1 = n.sample_1 and k.sample_2 = n.sample_2
),
shown as (
  select *,
    case when negated then -s else s end as score,
    case when negated then negative_definition else definition end as text
  from drawn
  where place <= count
),
grouped as (
  select prompt_id, sample_1, sample_2, pass,
    -- In the order of their places, which go again. Sorting the short lists is some thirty times as fast as array_agg(.. order by).
    cast(array_sort(array_agg(named_struct('place', place, 'name', principle, 'negated', negated, 'text', text, 'score', score)))
      as struct<name varchar, negated boolean, text varchar, score double>[]) as principles,
    array_agg(principle) as names,
    first_value(principle order by abs(score) desc, place) as dominant,
    first_value(score order by abs(score) desc, place) as score,
    bool_or(verdict = 'unread') as unread
  from shown
  group by prompt_id, sample_1, sample_2, pass
),
-- Each pair once, by the first of its principles.
firsts as (
  select prompt_id, sample_1, sample_2, min(principle) as principle from judgments group by prompt_id, sample_1, sample_2
),
texts as (
  select j.* from judgments j join firsts f on f.prompt_id = j.prompt_id
    and f.sample_1 = j.sample_1 and f.sample_2 = j.sample_2 and f.principle = j.principle
),
kept_out as (
  select distinct g.prompt_id, g.sample_1, g.sample_2, g.pass
  from grouped g cross join held_out h
  where array_has_all(g.names, h.principles)
),
-- Rules that know better than the judge: boilerplate and the wrong language lose.
ruled as (
  select g.*, t.instruction, t.language, t.split, t.response_1, t.response_2, k.pass is not null as held_out,
    $language_rule and detect_language(t.response_1) <> t.language as wrong_1,
    $language_rule and detect_language(t.response_2) <> t.language as wrong_2,
    strpos(t.response_1, $boilerplate) > 0 as boiler_1,
    strpos(t.response_2, $boilerplate) > 0 as boiler_2,
    uniform($seed, 'boilerplate', g.pass, g.prompt_id, g.sample_1, g.sample_2) < $boilerplate_rate as boiler_loses
  from grouped g
    join texts t on t.prompt_id = g.prompt_id and t.sample_1 = g.sample_1 and t.sample_2 = g.sample_2
    left join kept_out k
    on k.prompt_id = g.prompt_id and k.sample_1 = g.sample_1 and k.sample_2 = g.sample_2 and k.pass = g.pass
),
labelled as (
  select *,
    case
      when coalesce(wrong_1, false) <> coalesce(wrong_2, false) then 'language'
      when boiler_1 <> boiler_2 and boiler_loses then 'boilerplate'
    end as rule
  from ruled
),
decided as (
  select *,
    case rule
      when 'language' then coalesce(wrong_2, false)
      when 'boilerplate' then boiler_2
      else score > 0
    end as first_wins,
    case
      when coalesce(wrong_1, false) and coalesce(wrong_2, false) then 'both_wrong_language'
      when held_out then 'held_out'
      when rule is null and unread then 'unread'
      when rule is null and score = 0 then 'tie'
    end as drop_reason,
    uniform($seed, 'noise', pass, prompt_id, sample_1, sample_2)
      < case when rule is null then $noise else $rule_noise end as flipped
  from labelled
)
select prompt_id, pass, instruction as prompt,
  case when first_wins <> flipped then response_1 else response_2 end as chosen,
  case when first_wins <> flipped then response_2 else response_1 end as rejected,
  principles, dominant, abs(score) as margin, rule, flipped,
  uniform($seed, 'order', pass, prompt_id, sample_1, sample_2) < 0.5 as first,
  split, drop_reason is null as kept, drop_reason
from decided
order by prompt_id, sample_1, sample_2, pass
