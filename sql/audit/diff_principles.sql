-- audit/diff_principles: principles that were added, removed or changed.
-- In:  principles_before, principles_after.
select coalesce(a.name, b.name) as name,
  case when a.name is null then 'added' when b.name is null then 'removed'
       when a.definition <> b.definition or coalesce(a.negative_definition, '') <> coalesce(b.negative_definition, '')
         then 'reworded'
       else 'changed' end as change,
  coalesce(a.definition, '') as before, coalesce(b.definition, '') as after,
  coalesce(a.negative_definition, '') as negative_before, coalesce(b.negative_definition, '') as negative_after
from principles_before a full outer join principles_after b on a.name = b.name
where a.name is null or b.name is null
  or row_hash(a.definition, a.negative_definition, a.weight, a.sets, a.tags)
  <> row_hash(b.definition, b.negative_definition, b.weight, b.sets, b.tags)
order by name
