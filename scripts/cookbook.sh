#!/usr/bin/env bash
# Makes the two small runs whose output docs/cookbook.md shows: tests/fixtures/cookbook/a and b. They are the demo on fewer
# prompts and steps; a has more label noise. Only what the page asks about is kept: some tables, and b's reward model.
#
# They lie in the repository because the last digits of a run depend on the kind of processor. After this script:
#   UPDATE_DOCS=1 cargo test --test behaviour cookbook
set -euo pipefail
cd "$(dirname "$0")/.."
LIBTORCH="$(scripts/libtorch.sh)"
export LIBTORCH
salmon="${SALMON:-${CARGO_TARGET_DIR:-target}/debug/salmon}"
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT
small=(
  --set 'policies=[{name="brief-polite",principles=["Concise","Polite"],draw=0},{name="vivid-proud",principles=["Creative","not Humble"],draw=0}]'
  --set responses.prompts=60 --set responses.test_prompts=15 --set responses.rounds=3 --set preferences.passes=4
  --set ppo.steps=6 --set ppo.trainer.batch_size=16 --set evaluate.prompts=24 --set evaluate.samples=1
)
"$salmon" demo --run "$place/a" "${small[@]}" --set preferences.noise=0.15
# b goes on from a: what noise does not change is there already.
cp -r "$place/a" "$place/b"
"$salmon" demo --run "$place/b" "${small[@]}"

rm -rf tests/fixtures/cookbook
# keep RUN KIND NAME: the version that the run uses, and what says so.
keep() {
  local to="tests/fixtures/cookbook/$1/$2" from="$place/$1" file version
  mkdir -p "$to/$3" "${to%/"$2"}/current/$2"
  cp -r "$from/current/$2/$3" "${to%/"$2"}/current/$2/"
  for file in "$from/current/$2/$3"/*.json; do
    version="$(grep -o '[0-9a-f]\{32\}' "$file" | head -1)"
    cp -r "$from/$2/$3/$version" "$to/$3/"
    rm -rf "$to/$3/$version"/{shards,checkpoints}
  done
}
for run in a b; do
  for table in principles prompts responses judgments preferences rollouts evaluations; do keep "$run" tables "$table"; done
done
cp "$place/b/config.toml" tests/fixtures/cookbook/b/
keep b models reward
