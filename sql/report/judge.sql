-- The judge by principle: how often its two orders disagree, how far it leans to answer (a), and, where a world has
-- exact checkers, how often it is right.
-- In:  judgments, evaluations.
select j.principle, count(*) as n,
  avg(case when j.verdict = 'tie' then 1.0 else 0.0 end) as tie_rate,
  avg(j.score_ab - j.score_ba) / 2 as lean,
  max(e.value) as agreement, max(e.n) as agreement_n
from judgments j
  left join (select principle, value, n from evaluations where what = 'judge' and metric = 'agreement') e
    on e.principle = j.principle
group by j.principle
order by j.principle
