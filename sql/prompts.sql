-- prompts: what this run answers, judges and trains on.
-- In:  imported_prompts, the Parquet files of [data] prompts, as `salmon import` wrote them.
-- Out: one row per distinct prompt_id (the first by its text), in an order that no file layout changes.
with numbered as (
  select *, row_number() over (partition by prompt_id order by instruction, source, kind, language, length_bonus, split) as place
  from imported_prompts
)
select prompt_id, instruction, source, kind, language, length_bonus, split
from numbered
where place = 1
order by prompt_id
