-- audit/diff_rows: how the rows of one table differ between two runs.
-- In:  before, after: key and value as row_hash of the key columns and of all others.
-- Out: counts. Equal rows meet first; what is left of one key meets in the order of its values.
with a as (
  select key, value, row_number() over (partition by key, value) as n from before
),
b as (
  select key, value, row_number() over (partition by key, value) as n from after
),
only_a as (
  select a.key, row_number() over (partition by a.key order by a.value) as n
  from a left anti join b on a.key = b.key and a.value = b.value and a.n = b.n
),
only_b as (
  select b.key, row_number() over (partition by b.key order by b.value) as n
  from b left anti join a on a.key = b.key and a.value = b.value and a.n = b.n
),
joined as (
  select x.key as key_a, y.key as key_b from only_a x full outer join only_b y on x.key = y.key and x.n = y.n
)
select (select count(*) from before) as before, (select count(*) from after) as after,
  coalesce(sum(case when key_b is null then 1 else 0 end), 0) as removed,
  coalesce(sum(case when key_a is null then 1 else 0 end), 0) as added,
  coalesce(sum(case when key_a is not null and key_b is not null then 1 else 0 end), 0) as changed
from joined
