-- margin_calibration: can a label with a large margin be trusted more?
-- In:  preferences, kept ones that a principle decided.
-- Out: bins of the margin (each twice as wide as the one before), in units of the principle's variance, from low to high;
--      labels; share (of all of them, 0 to 1); contested (share in which another principle that was shown wants the
--      other response, 0 to 1); flipped (share turned by label noise, 0 to 1, which knows nothing of the margin).
with labels as (
  select row_number() over () as label, margin, flipped, principles from preferences where kept and rule is null
),
shown as (
  select label, margin, flipped, unnest(principles) as p from labels
),
spread as (
  select label, margin, flipped, min(p['score']) as lowest, max(p['score']) as highest
  from shown
  group by label, margin, flipped
),
binned as (
  select *, floor(log2(margin)) as bin, case when lowest < 0 and highest > 0 then 1.0 else 0.0 end as contested from spread
)
select power(2.0, bin) as low, power(2.0, bin + 1) as high, count(*) as labels,
  count(*) / sum(cast(count(*) as double)) over () as share, avg(contested) as contested,
  avg(case when flipped then 1.0 else 0.0 end) as flipped
from binned
group by bin
order by bin
