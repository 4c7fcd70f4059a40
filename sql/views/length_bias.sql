-- length_bias: do longer responses win? By deciding principle, as written and negated.
-- In:  preferences, kept ones that a principle decided.
-- Out: principle; negated; labels; chosen_longer (share of the labels whose responses differ in length in which the longer one
--      is chosen, 0 to 1; .5 is no bias); chosen_length and rejected_length (means, characters).
with shown as (
  select dominant, character_length(chosen) as chosen_length, character_length(rejected) as rejected_length,
    unnest(principles) as p
  from preferences
  where kept and rule is null
)
select dominant as principle, p['negated'] as negated, count(*) as labels,
  avg(case when chosen_length > rejected_length then 1.0 when chosen_length < rejected_length then 0.0 end) as chosen_longer,
  avg(chosen_length) as chosen_length, avg(rejected_length) as rejected_length
from shown
where p['name'] = dominant
group by dominant, p['negated']
order by principle, negated
