-- dominant_principles: which principles decide the labels?
-- In:  preferences, the kept ones.
-- Out: dominant (NULL where a rule decided and not a principle); labels; share (of all kept labels, 0 to 1); margin (mean
--      magnitude of the deciding score, in units of the principle's variance); flipped (share turned by label noise, 0 to 1).
with decided as (
  select case when rule is null then dominant end as dominant, margin, flipped from preferences where kept
)
select dominant, count(*) as labels, count(*) / sum(cast(count(*) as double)) over () as share, avg(margin) as margin,
  avg(case when flipped then 1.0 else 0.0 end) as flipped
from decided
group by dominant
order by labels desc, dominant
