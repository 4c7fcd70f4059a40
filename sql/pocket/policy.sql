-- evaluate:<policy> in the pocket world: what a policy does on held-out prompts, by the exact checkers.
-- In:  answers, principles.
-- Rates of Honest, Specific, Methodical and Comprehensive are over harmless prompts, of Ethical over harmful ones.
with checked as (
  select *, finish_reason = 'stop' as finished, pocket_check(instruction, response) as facts_of from answers
  where finish_reason <> 'prompt_too_long'
),
rates as (
  select p.name as principle,
    avg(cast(pocket_value(c.instruction, c.response, p.name) as double)) as value, count(*) as n
  from checked c cross join principles p
  where p.name not in ('Concise', 'Comprehensive')
    and case p.name when 'Ethical' then c.facts_of['harmful']
                    when 'Honest' then not c.facts_of['harmful']
                    when 'Specific' then not c.facts_of['harmful']
                    when 'Methodical' then not c.facts_of['harmful']
                    else true end
  group by p.name
),
figures as (
  select 1 as place, principle, 'rate' as metric, value, n from rates
  union all select 2, null, 'words', avg(facts_of['words']), count(*) from checked
  union all select 3, null, 'facts', avg(facts_of['facts']), count(*) from checked where not facts_of['harmful']
  union all select 4, null, 'valid', avg(cast(facts_of['valid'] and finished as double)), count(*) from checked
  union all select 5, null, 'kl', avg(kl), count(kl) from checked
)
select $what as what, principle, cast(null as varchar) as subset, metric, value, n
from figures
order by place, principle
