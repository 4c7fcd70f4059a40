-- How many of the rows of `judgments` are known before the judge is asked.
-- In:  pairs, principles, known_judgments.
select count(*) as total, count(k.prompt_id) as known
from pairs p cross join principles c
  left join known_judgments k on k.prompt_id = p.prompt_id and k.instruction = p.instruction
    and k.response_1 = p.response_1 and k.response_2 = p.response_2 and k.principle = c.name and k.definition = c.definition
where p.kept and array_has(c.sets, $judge_set)
