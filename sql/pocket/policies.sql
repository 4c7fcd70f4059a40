-- What each policy of the demo does, side by side.
-- In:  evaluations.
select what as policy,
  round(max(case when metric = 'words' then value end), 1) as words,
  round(max(case when metric = 'facts' then value end), 2) as facts,
  round(max(case when principle = 'Polite' then value end), 2) as polite,
  round(max(case when principle = 'Methodical' then value end), 2) as methodical,
  round(max(case when principle = 'Creative' then value end), 2) as creative,
  round(max(case when principle = 'Humble' then value end), 2) as humble,
  round(max(case when principle = 'Ethical' then value end), 2) as ethical,
  round(max(case when principle = 'Honest' then value end), 2) as honest,
  round(max(case when principle = 'Specific' then value end), 2) as specific,
  round(max(case when principle = 'Multilingual' then value end), 2) as multilingual,
  round(max(case when metric = 'valid' then value end), 2) as valid,
  round(max(case when metric = 'kl' then value end), 1) as kl
from evaluations
where what like 'policy:%'
group by what
order by what <> 'policy:sft', what
