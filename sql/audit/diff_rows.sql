-- audit/diff_rows: how the rows of one table differ between two runs.
-- In:  before, after: row_key and row_value, the row_hash of the key columns and of all others.
-- Out: counts. Equal rows meet first; what is left of one key meets in the order of its values.
with a as (
  select row_key, row_value, row_number() over (partition by row_key, row_value) as n from before
),
b as (
  select row_key, row_value, row_number() over (partition by row_key, row_value) as n from after
),
only_a as (
  select a.row_key, row_number() over (partition by a.row_key order by a.row_value) as n
  from a left anti join b on a.row_key = b.row_key and a.row_value = b.row_value and a.n = b.n
),
only_b as (
  select b.row_key, row_number() over (partition by b.row_key order by b.row_value) as n
  from b left anti join a on a.row_key = b.row_key and a.row_value = b.row_value and a.n = b.n
),
joined as (
  select x.row_key as key_a, y.row_key as key_b from only_a x full outer join only_b y on x.row_key = y.row_key and x.n = y.n
)
select (select count(*) from before) as before, (select count(*) from after) as after,
  coalesce(sum(case when key_b is null then 1 else 0 end), 0) as removed,
  coalesce(sum(case when key_a is null then 1 else 0 end), 0) as added,
  coalesce(sum(case when key_a is not null and key_b is not null then 1 else 0 end), 0) as changed
from joined
