#!/usr/bin/env bash
# Peak resident memory of a real PPO stage: four LoRA adapters (policy, reference, value, reward) on one base against four
# full models, on a model with random weights.
#
#   benches/ppo-memory.sh [HIDDEN LAYERS]          1024 8 by default: 100 million weights
#
# Each row is a run of its own through all stages before PPO, then `salmon run policy:main`, measured from outside: the
# highest VmHWM that /proc showed until it ended. Needs about 8 GiB for four full models. Folders go to a temporary place.
set -euo pipefail
cd "$(dirname "$0")/.."
LIBTORCH="$(scripts/libtorch.sh)"
export LIBTORCH
cargo build --locked --quiet --bin salmon --example random_llama
bin="${CARGO_TARGET_DIR:-target}/debug"
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT
"$bin/salmon" init "$place" >/dev/null
"$bin/examples/random_llama" "$place/prompts.parquet" "$place/model" "${1:-1024}" "${2:-8}"

cat >"$place/bench.toml" <<'TOML'
[model]
base = "model"

[data]
prompts = ["prompts.parquet"]

[principles]
files = ["pocket"]

[templates]
self_align = "pocket_self_align"
chat = "pocket_chat"
judge = "pocket_judge"
reward = "pocket_reward"

[self_align]
prompts = 12
max_tokens = 48
stop = [".", "?", "\n"] # a model that learned nothing never ends by itself
answer_marker = ""
min_chars = 1
leaks = []

[sft]
batch_size = 8

[responses]
prompts = 8
max_tokens = 16
stop = [".", "?", "\n"]
min_chars = 1

[preferences]
passes = 1
language_rule = false

[reward]
max_response_tokens = 32

[reward.trainer]
batch_size = 8

[ppo]
steps = 2
max_tokens = 32
stop = []

[ppo.trainer]
batch_size = 16
micro_batch_tokens = 512

[[policies]]
name = "main"
principles = ["Concise", "Polite"]
draw = 0
TOML

. benches/peak.sh

bytes=$(stat -c %s "$place/model/model.safetensors")
echo "$((bytes / 4000000)) million weights, $((bytes / 1048576)) MiB as float32"
printf '%-58s%12s%12s%10s\n' "policy:main" "peak MiB" "of full" "seconds"
full=0
row() {
  local name=$1
  shift
  local run="$place/run-${name//[^a-z0-9]/-}" set=()
  for value in "$@"; do set+=(--set "$value"); done
  "$bin/salmon" run reward --config "$place/bench.toml" --run "$run" "${set[@]}" >"$place/log" 2>&1 || { cat "$place/log" >&2; exit 1; }
  local found
  found=$(peak "$bin/salmon" run policy:main --config "$place/bench.toml" --run "$run" "${set[@]}")
  read -r mib seconds <<<"$found"
  if [ "$full" = 0 ]; then full=$mib; fi
  printf '%-58s%12s%12s%10s\n' "$name" "$mib" "$(awk "BEGIN { printf \"%.2f\", $mib / $full }")" "$seconds"
  rm -rf "$run"
}
lora="model.lora={r=64}"
row "four full models"
row "four adapters" "$lora"
row "four adapters, checkpointing" "$lora" ppo.trainer.gradient_checkpointing=true
row "four adapters, bfloat16" "$lora" model.dtype=bfloat16
row "four adapters, NF4 double-quantised, checkpointing" "$lora" ppo.trainer.gradient_checkpointing=true \
  model.quantization_config.load_in_4bit=true model.quantization_config.bnb_4bit_use_double_quant=true
