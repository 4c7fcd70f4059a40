-- splits: what became of the prompts of each kind, and of each language?
-- In:  prompts, responses, judgments, preferences.
-- Out: split_by (kind or language) and its value (language `unknown` where there is none); prompts; responses, responses_kept;
--      judgments; flip_rate (share of the read ones on which the judge's orders disagree, 0 to 1); labels, labels_kept;
--      margin (mean magnitude of the deciding score of the kept, in units of the principle's variance).
with answered as (
  select prompt_id, count(*) as n, count(*) filter (where kept) as kept from responses group by prompt_id
),
judged as (
  select prompt_id, count(*) as n, count(*) filter (where verdict <> 'unread') as read,
    count(*) filter (where verdict = 'tie') as flipped
  from judgments
  group by prompt_id
),
labelled as (
  select prompt_id, count(*) as n, count(*) filter (where kept) as kept, sum(case when kept then margin end) as margin
  from preferences
  group by prompt_id
),
parts as (
  select 'kind' as split_by, kind as value, prompt_id from prompts
  union all
  select 'language', coalesce(language, 'unknown'), prompt_id from prompts
)
select p.split_by, p.value, count(*) as prompts,
  coalesce(sum(a.n), 0) as responses, coalesce(sum(a.kept), 0) as responses_kept,
  coalesce(sum(j.n), 0) as judgments, cast(sum(j.flipped) as double) / nullif(sum(j.read), 0) as flip_rate,
  coalesce(sum(l.n), 0) as labels, coalesce(sum(l.kept), 0) as labels_kept, sum(l.margin) / nullif(sum(l.kept), 0) as margin
from parts p
  left join answered a on a.prompt_id = p.prompt_id
  left join judged j on j.prompt_id = p.prompt_id
  left join labelled l on l.prompt_id = p.prompt_id
group by p.split_by, p.value
order by p.split_by, p.value
