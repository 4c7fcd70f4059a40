#!/usr/bin/env bash
# make bench: salmon and other programs on the same work, one script per claim; ends with a table.
#
#   benches/run.sh [SCRIPT ...]                    all by default; BENCH="rollouts judging" names them too
#
# BENCH_ROUNDS=1 is a short one, BENCH_MODELS="0.2M 45M" leaves out the large model, BENCH_THREADS is 2. SALMON_BENCH names
# another build of examples/bench. Needs network once, for the Python environment, and 12 GB of memory and 8 GB of disk.
# The same rows land in target/bench/results.json. A missed target is no failure; a wrong result is.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { echo "salmon bench: $*" >&2; }
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export BENCH_WORK="$target/bench" SALMON_BENCH="${SALMON_BENCH:-$target/release/examples/bench}"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false HF_HOME="$target/bench/huggingface"
export TRL_EXPERIMENTAL_SILENCE=1 ACCELERATE_USE_CPU=true
[ -x "$SALMON_BENCH" ] || { say "$SALMON_BENCH is missing; build it: cargo build --release --features bench --example bench"; exit 1; }
read -ra scripts <<<"${*:-${BENCH:-rollouts judging scoring bandwidth gemm_peak reward_training ppo_step growth}}"
for script in "${scripts[@]}"; do
  [ -e "benches/$script.py" ] || { say "there is no benches/$script.py"; exit 1; }
done

# The peers of `make interop`, and more beside them.
python=$(scripts/interop/environment.sh)
mark=$(cat scripts/interop/requirements*.txt benches/requirements.txt | sha256sum | cut -c1-12)
more="${XDG_CACHE_HOME:-$HOME/.cache}/salmon/bench-$mark"
if [ ! -e "$more/.complete" ]; then
  say "installing benches/requirements.txt (once per machine) in $more"
  rm -rf "$more"
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$more" -r benches/requirements.txt >&2 \
    || { say "pip could not install benches/requirements.txt; check the network"; exit 1; }
  touch "$more/.complete"
fi
export PYTHONPATH="$more"

rm -rf "$BENCH_WORK/rows"; mkdir -p "$BENCH_WORK/rows" "$BENCH_WORK/logs"
failed=()
for script in "${scripts[@]}"; do
  say "$script"
  # The libraries log a lot; the log says how each round went.
  if ! "$python" -W ignore "benches/$script.py" >"$BENCH_WORK/logs/$script.log" 2>&1; then
    tail -n 15 "$BENCH_WORK/logs/$script.log" >&2
    failed+=("$script")
  fi
done
"$python" benches/table.py
[ ${#failed[@]} = 0 ] || { say "failed: ${failed[*]}; see $BENCH_WORK/logs"; exit 1; }
