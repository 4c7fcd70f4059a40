-- audit/metrics_sft: what stage `sft` trained on.
-- In:  metrics, demonstrations.  Out: per rule what was found and what must be.
select 'rows used or too long, which are kept demonstrations and the questions about the assistant' as rule,
  (select cast(sum(value) as bigint) from metrics where step = 0 and name in ('rows/used', 'rows/too_long')) as found,
  (select count(*) from demonstrations where kept) + $identity_count as expected
order by rule
