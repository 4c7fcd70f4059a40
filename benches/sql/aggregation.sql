-- The work of stage `preferences` (sql/preferences.sql) without its rules, in words that all engines know. draw(n, key) is
-- plain arithmetic that benches/sql.py puts in, since `uniform` is a function of salmon's. One row comes out, so that no
-- engine writes: counts and sums over every label.
with passes as (
  select 0 as pass union all select 1 union all select 2 union all select 3 union all select 4 union all
  select 5 union all select 6 union all select 7 union all select 8 union all select 9
),
scores as (
  select principle, score_ab as score from judgments
  union all
  select principle, score_ba as score from judgments
),
variances as (
  select principle, avg(score * score) - avg(score) * avg(score) as variance from scores group by principle
),
numbered as (
  select principle, variance, row_number() over (order by principle) as number from variances
),
normalised as (
  select cast(j.prompt_id as bigint) as pair, j.principle, v.number,
    case when j.verdict = 'tie' then 0.0 else (j.score_ab + j.score_ba) / 2 / v.variance end as s
  from judgments j join numbered v on v.principle = j.principle
),
counts as (
  select p.pair, d.pass, p.pair * 10 + d.pass as label,
    1 + cast(floor(ln(1 - draw(0, p.pair * 10 + d.pass) * (1 - power(0.6, 3))) / ln(0.6)) as bigint) as shown
  from (select distinct pair from normalised) p cross join passes d
),
drawn as (
  select k.label, k.pair, k.shown, n.principle, n.s, draw(1, k.label * 16 + n.number) as place,
    draw(2, k.label * 16 + n.number) < 0.5 as negated
  from normalised n join counts k on k.pair = n.pair
),
placed as (
  select *, row_number() over (partition by label order by place, principle) as nth from drawn
),
strengths as (
  select label, pair, principle, nth, case when negated then -s else s end as score,
    row_number() over (partition by label order by abs(s) desc, nth) as strength
  from placed
  where nth <= shown
),
grouped as (
  select label, pair, array_agg(principle) as principles,
    max(case when strength = 1 then score end) as score
  from strengths
  group by label, pair
),
texts as (
  select cast(prompt_id as bigint) as pair, response_1, response_2 from judgments where principle = 'Concise'
),
labels as (
  select g.label, g.principles, abs(g.score) as margin, draw(3, g.label) < 0.02 as flipped,
    case when (g.score > 0) <> (draw(3, g.label) < 0.02) then t.response_1 else t.response_2 end as chosen,
    case when (g.score > 0) <> (draw(3, g.label) < 0.02) then t.response_2 else t.response_1 end as rejected
  from grouped g join texts t on t.pair = g.pair
  where g.score <> 0
)
select count(*) as labels, sum(margin) as margin, sum(case when flipped then 1 else 0 end) as flipped,
  sum(cardinality(principles)) as principles, sum(case when chosen > rejected then 1 else 0 end) as later,
  sum(character_length(chosen)) as characters
from labels
