-- audit/principles: the accounts of table `principles`.
-- In:  principles.  Out: per rule what was found and what must be.
select 'principles of the files' as rule, count(*) as found, $principles_count as expected from principles
union all
select 'names that are there twice', count(*) - count(distinct name), 0 from principles
order by rule
