-- evaluate:<policy>: what a policy does on test prompts, without any outside judge.
-- In:  answers.
with given as (
  select * from answers where finish_reason <> 'prompt_too_long'
)
select $what as what, cast(null as varchar) as principle, cast(null as varchar) as subset, metric, value, n
from (
  select 1 as place, 'words' as metric,
    avg(cast(array_length(string_to_array(response, ' ')) as double)) as value, count(*) as n from given
  union all select 2, 'tokens', avg(cast(tokens as double)), count(*) from given
  union all select 3, 'finished', avg(cast(finish_reason = 'stop' as double)), count(*) from given
  union all select 4, 'kl', avg(kl), count(kl) from given
  union all select 5, 'prompt_too_long', avg(cast(finish_reason = 'prompt_too_long' as double)), count(*) from answers
)
order by place
