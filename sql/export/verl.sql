-- Kept preferences for verl: the five columns of its RL data, with both answers beside them
-- (`salmon export preferences --layout verl`). ground_truth is the chosen answer, for a reward function that compares.
-- In:  preferences, in the order in which they were written (the number of a row counts in it).
select
  'salmon' as data_source,
  make_array(named_struct('role', 'user', 'content', prompt)) as prompt,
  'alignment' as ability,
  named_struct('style', 'model', 'ground_truth', chosen) as reward_model,
  named_struct('split', split, 'index', cast(row_number() over () as bigint) - 1, 'prompt_id', prompt_id, 'pass', pass,
    'principles', principles, 'dominant', dominant, 'margin', margin, 'rule', rule, 'flipped', flipped) as extra_info,
  chosen, rejected
from preferences
where kept and split = $split
