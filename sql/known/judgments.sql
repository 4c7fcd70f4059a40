-- known_judgments: scores that earlier versions of `judgments` hold, by the same judge, template and limits.
-- In:  earlier_judgments; earlier_principles, the definitions each version was judged under.
-- Out: one row per pair, in that order of its responses, and wording of a principle.
select prompt_id, instruction, response_1, response_2, principle, definition, score_ab, score_ba
from (
  select j.*, c.definition,
    row_number() over (
      partition by j.prompt_id, j.instruction, j.response_1, j.response_2, j.principle, c.definition order by j.version, j.sample_1, j.sample_2
    ) as place
  from earlier_judgments j join earlier_principles c on c.version = j.version and c.name = j.principle
)
where place = 1
