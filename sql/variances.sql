-- variances: how far the scores of each principle spread, over all training pairs (section 2 of the method).
-- In:  judgments.
-- Out: one row per principle: the population variance of its scores, both orders alike. Sums of decimals are exact, so
--      its bits do not depend on the order in which rows arrive.
with scores as (
  select principle, score_ab as score from judgments where split = 'train'
  union all
  select principle, score_ba as score from judgments where split = 'train'
),
means as (
  select principle, cast(sum(cast(score as decimal(38, 18))) as double) / count(*) as mean from scores group by principle
)
select s.principle,
  cast(sum(cast((s.score - m.mean) * (s.score - m.mean) as decimal(38, 18))) as double) / count(*) as variance
from scores s join means m on m.principle = s.principle
group by s.principle
