-- runs: what was run, oldest first (`salmon runs`).
-- In:  runs.
select stage, name as made, rows, round(seconds, 2) as seconds, started, substr(fingerprint, 1, 8) as fingerprint
from runs
order by started, made
