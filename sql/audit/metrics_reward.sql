-- audit/metrics_reward: what stage `reward` trained on.
-- In:  metrics, preferences.  Out: per rule what was found and what must be.
select 'rows used or too long, which are kept training preferences' as rule,
  (select cast(sum(value) as bigint) from metrics where step = 0 and name in ('rows/used', 'rows/too_long')) as found,
  (select count(*) from preferences where kept and split = 'train') as expected
order by rule
