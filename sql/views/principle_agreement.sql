-- principle_agreement: which principles want the same, and which contradict each other?
-- In:  judgments, those that were read.
-- Out: one row per two principles, principle_1 before principle_2 in the alphabet; pairs (judged under both); decided (of
--      these, both verdicts hold in both orders); agreement (share of the decided with one verdict, 0 to 1; .5 is chance);
--      correlation (Pearson's, of the mean scores over all pairs, -1 to 1).
with judged as (
  select prompt_id, sample_1, sample_2, principle, (score_ab + score_ba) / 2 as score,
    case when verdict <> 'tie' then verdict end as verdict
  from judgments
  where verdict <> 'unread'
)
select a.principle as principle_1, b.principle as principle_2, count(*) as pairs,
  count(case when a.verdict is not null and b.verdict is not null then 1 end) as decided,
  avg(case when a.verdict = b.verdict then 1.0 when a.verdict <> b.verdict then 0.0 end) as agreement,
  corr(a.score, b.score) as correlation
from judged a
  join judged b on b.prompt_id = a.prompt_id and b.sample_1 = a.sample_1 and b.sample_2 = a.sample_2
where a.principle < b.principle
group by a.principle, b.principle
order by a.principle, b.principle
