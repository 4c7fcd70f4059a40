#!/usr/bin/env bash
# make interop: hold what salmon writes against the programs that read it.
#
# Makes two tiny runs (LoRA with the linear reward head; full training with the Yes/No head), exports everything, runs one
# script per claim and ends with a table of them. Needs network once, for the Python environment (environment.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."
here=scripts/interop
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export SALMON="$target/debug/salmon" SALMON_LOGPROBS="$target/debug/examples/logprobs"
export INTEROP_WORK="$target/interop" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false HF_HOME="$target/interop/huggingface"
python=$($here/environment.sh)

rm -rf "$INTEROP_WORK"; mkdir -p "$INTEROP_WORK"
tiny=(
  --set 'policies=[{name="brief",principles=["Concise"],draw=0},{name="brief-kind",principles=["Concise","Polite"],draw=0}]'
  --set ppo.steps=2 --set ppo.trainer.batch_size=8
  --set self_align.prompts=24 --set self_align.samples=2 --set sft.batch_size=16
  --set responses.prompts=16 --set responses.test_prompts=8 --set responses.rounds=2
  --set preferences.passes=2 --set reward.trainer.batch_size=8 --set evaluate.prompts=4 --set evaluate.samples=1
)
lora='model.lora={r=8,lora_alpha=16.0,target_modules=["q_proj","v_proj","o_proj","up_proj","down_proj"]}'
echo "salmon interop: making two runs and their exports in $INTEROP_WORK" >&2
"$SALMON" demo --run "$INTEROP_WORK/linear/run" "${tiny[@]}" --set "$lora" >/dev/null 2>&1
"$SALMON" demo --run "$INTEROP_WORK/yes_no/run" "${tiny[@]}" --set reward.head=yes_no >/dev/null 2>&1

for run in linear yes_no; do
  out="$INTEROP_WORK/$run/export"
  export_() { "$SALMON" export "$1" --run "$INTEROP_WORK/$run/run" --out "$out/$2" "${@:3}" >/dev/null; }
  for model in base sft policy:brief reward; do
    export_ model "${model/:/-}" --model "$model"
    export_ model "${model/:/-}-float32" --model "$model" --dtype float32
    if [ $run = linear ] && [ $model != base ]; then
      export_ model "${model/:/-}-adapter" --model "$model" --adapter "$out/base-float32"
    fi
  done
  export_ model policy-brief-shards --model policy:brief --max-shard-size 100KB
  export_ model policy-brief-float16 --model policy:brief --dtype float16
  for layout in trl trl-conversational openrlhf verl; do
    for format in parquet jsonl; do
      export_ preferences "preferences-$layout-$format" --layout $layout --format $format
    done
  done
  export_ metrics metrics
done

# The libraries log a lot; what a claim says about a failure is in its log and in the table.
failed=0
for script in models rewards adapters training tables curves; do
  echo "salmon interop: $script" >&2
  if ! "$python" -W ignore "$here/claims/$script.py" >"$INTEROP_WORK/$script.log" 2>&1; then
    tail -n 20 "$INTEROP_WORK/$script.log" >&2
    printf 'FAILED\t%s.py ran to its end\tsee %s\n' "$script" "$INTEROP_WORK/$script.log" >>"$INTEROP_WORK/results.tsv"
  fi
done
"$python" "$here/table.py" "$INTEROP_WORK/results.tsv" || failed=1
exit $failed
