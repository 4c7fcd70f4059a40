-- audit/metrics: the accounts of table `metrics`, as one stage made it.
-- In:  metrics.  Out: per rule what was found and what must be.
select 'numbers that are there twice for one step' as rule, (select count(*) from metrics)
  - (select count(*) from (select distinct stage, step, name from metrics)) as found, 0 as expected
union all
select 'numbers of another stage', count(*), 0 from metrics where stage <> $stage
order by rule
