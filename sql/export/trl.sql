-- Kept preferences as TRL's standard preference data: three texts (`salmon export preferences --layout trl`).
-- In:  preferences, in the order in which they were written.
select prompt, chosen, rejected, prompt_id, pass, principles, dominant, margin, rule, flipped
from preferences
where kept and split = $split
