-- label_noise: how many labels were turned by noise, by what decided them?
-- In:  preferences, the kept ones.
-- Out: decided_by (principle, or the rule: boilerplate, language); split; labels; flipped (labels turned);
--      flip_rate (their share, 0 to 1; preferences.noise and preferences.rule_noise are what it should be near).
select coalesce(rule, 'principle') as decided_by, split, count(*) as labels,
  count(*) filter (where flipped) as flipped, avg(case when flipped then 1.0 else 0.0 end) as flip_rate
from preferences
where kept
group by rule, split
order by decided_by, split
