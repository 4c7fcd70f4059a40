-- order_flips: does the judge's verdict depend on the order in which it reads two responses? By principle.
-- In:  judgments; evaluations, for a world with exact checkers.
-- Out: principle; pairs (judged under it); unread (pairs beyond the judge's context); flip_rate (share of the read pairs on
--      which the orders disagree, 0 to 1); lean (logits by which the answer that is shown first is favoured, 0 is even);
--      agreement (share of agreement_n pairs on which the judge is right; NULL where nothing can check it).
select j.principle, count(*) as pairs,
  count(*) filter (where j.verdict = 'unread') as unread,
  avg(case j.verdict when 'unread' then null when 'tie' then 1.0 else 0.0 end) as flip_rate,
  avg(j.score_ab - j.score_ba) / 2 as lean,
  max(e.value) as agreement, max(e.n) as agreement_n
from judgments j
  left join (select principle, value, n from evaluations where what = 'judge' and metric = 'agreement') e
    on e.principle = j.principle
group by j.principle
order by j.principle
