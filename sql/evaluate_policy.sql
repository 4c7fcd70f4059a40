-- evaluate:<policy>: what a policy does on test prompts, without any outside judge.
-- In:  answers.
select $what as what, cast(null as varchar) as principle, cast(null as varchar) as subset, metric, value, n
from (
  select 1 as place, 'words' as metric,
    avg(cast(array_length(string_to_array(response, ' ')) as double)) as value, count(*) as n from answers
  union all select 2, 'tokens', avg(cast(tokens as double)), count(*) from answers
  union all select 3, 'finished', avg(cast(finish_reason = 'stop' as double)), count(*) from answers
  union all select 4, 'kl', avg(kl), count(kl) from answers
)
order by place
