-- Which principles decided the kept preferences, for the card of a data set.
-- In:  preferences.
select dominant, count(*) as n, avg(margin) as margin, avg(case when flipped then 1.0 else 0.0 end) as flipped
from preferences
where kept
group by dominant
order by n desc, dominant
