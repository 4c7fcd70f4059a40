-- The principles of one set, for a card.
-- In:  principles.
select name, definition, negative_definition
from principles
where array_has(sets, $set)
order by name
