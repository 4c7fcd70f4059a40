-- The metrics of one stage, step by step (`salmon export metrics`).
-- In:  metrics.
select step, name, value
from metrics
where stage = $stage
order by step, name
