-- sft: principle engraving. The model learns to answer the bare prompt, without the rules in sight.
-- In:  demonstrations, identity (questions about the assistant itself with hand-written answers).
-- Out: prompt (rendered, ends where the answer begins) and completion; the trainer's loss is on the completion.
select 'demonstration/' || prompt_id || '/' || sample as row_id,
  render($chat_template, named_struct('instruction', instruction)) as prompt,
  response as completion
from demonstrations
where kept
union all
select 'identity/' || ordinal as row_id,
  render($chat_template, named_struct('instruction', question)) as prompt,
  answer as completion
from identity
order by row_id
