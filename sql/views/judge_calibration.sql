-- judge_calibration: is the judge as sure as it should be?
-- In:  judgments, those that were read.
-- Out: ten bins of confidence, from low to high: that of the verdict in one order, 1 / (1 + e^-|score|), of which there are two
--      a judgment; verdicts; confidence (its mean, .5 to 1); confirmed (share that the other order confirms, 0 to 1);
--      gap (confirmed - confidence; below 0 the judge is surer than it is steady).
with orders as (
  select score_ab as score, score_ba as other from judgments where verdict <> 'unread'
  union all
  select score_ba, score_ab from judgments where verdict <> 'unread'
),
rated as (
  select 1 / (1 + exp(-abs(score))) as confidence, case when score * other > 0 then 1.0 else 0.0 end as confirmed from orders
),
binned as (
  select *, least(cast(floor(confidence * 20) as bigint), 19) as bin from rated
)
select bin / 20.0 as low, (bin + 1) / 20.0 as high, count(*) as verdicts, avg(confidence) as confidence,
  avg(confirmed) as confirmed, avg(confirmed) - avg(confidence) as gap
from binned
group by bin
order by bin
