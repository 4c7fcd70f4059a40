-- The pairs on which the judge's two orders disagree most (docs/cookbook.md).
select principle, prompt_id, instruction, response_1, response_2, score_ab, score_ba
from judgments
where verdict = 'tie'
order by abs(score_ab - score_ba) desc, principle, prompt_id
limit 20
