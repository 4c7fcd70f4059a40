-- What the newest execution of each stage made.
-- In:  runs.
with placed as (
  select *, rank() over (partition by stage order by started desc) as place from runs
)
select stage, name as made, rows, seconds, started, host, version, substr(fingerprint, 1, 8) as fingerprint
from placed
where place = 1
order by started, stage, made
