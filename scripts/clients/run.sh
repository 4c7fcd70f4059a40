#!/usr/bin/env bash
# make clients: `salmon serve` against the clients that people have: ADBC, psycopg, psql, a browser.
#
# Makes a small run (or takes the one of SALMON_CLIENTS_RUN), serves it and asks it with each client. psql and Chromium are
# used where the machine has them. Screenshots of the page are left in $target/clients.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=scripts/clients
say() { echo "salmon clients: $*" >&2; }

folder=$(scripts/python.sh clients)

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export SALMON="$target/debug/salmon" CLIENTS_WORK="$target/clients"
mkdir -p "$CLIENTS_WORK"
run="${SALMON_CLIENTS_RUN:-$CLIENTS_WORK/run}"
if [ ! -d "$run" ]; then
  say "making a run in $run"
  "$SALMON" demo --run "$run" \
    --set 'policies=[{name="brief",principles=["Concise"],draw=0},{name="brief-kind",principles=["Concise","Polite"],draw=0}]' \
    --set ppo.steps=2 --set ppo.trainer.batch_size=8 --set self_align.prompts=24 --set self_align.samples=2 \
    --set sft.batch_size=16 --set responses.prompts=16 --set responses.test_prompts=8 --set responses.rounds=2 \
    --set preferences.passes=2 --set reward.trainer.batch_size=8 --set evaluate.prompts=4 --set evaluate.samples=1 \
    >/dev/null 2>&1
fi
exec "$folder/bin/python" "$here/check.py" "$run"
