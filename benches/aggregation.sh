#!/usr/bin/env bash
# Memory and time of aggregation: stage `preferences` over made-up judgments with 2 KB of text in each row.
#
#   benches/aggregation.sh [ROWS ...]              100000 1000000 10000000 by default: preference rows
#   benches/aggregation.sh --s3 [ROWS ...]         the same on an S3 server that the script starts
#
# Each size is a run of its own, filled by examples/aggregation_input.rs; `salmon run preferences` then aggregates, measured
# from outside: seconds and the highest VmHWM that /proc showed. The target is flat memory below 2 GiB and time in
# proportion. 10 million rows take some 15 GB of disk for the time. Folders go to a temporary place.
set -euo pipefail
cd "$(dirname "$0")/.."
LIBTORCH="$(scripts/libtorch.sh)"
export LIBTORCH
s3=
if [ "${1:-}" = --s3 ]; then s3=yes; shift; fi
cargo build --locked --quiet --bin salmon --example aggregation_input ${s3:+--example s3_server}
bin="${CARGO_TARGET_DIR:-target}/debug"
place="$(mktemp -d)"
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$place"' EXIT
if [ -n "$s3" ]; then
  export AWS_ACCESS_KEY_ID=bench AWS_SECRET_ACCESS_KEY=bench AWS_REGION=us-east-1 AWS_ALLOW_HTTP=true
  mkdir -p "$place/s3/bucket"
  "$bin/examples/s3_server" "$place/s3" >"$place/address" &
  server=$!
  until [ -s "$place/address" ]; do sleep 0.1; done
  AWS_ENDPOINT_URL="$(cat "$place/address")"
  export AWS_ENDPOINT_URL
fi
. benches/peak.sh
printf '%12s%12s%14s%10s%12s\n' rows seconds "rows/s" "peak MiB" home
for rows in "${@:-100000 1000000 10000000}"; do
  for size in $rows; do
    run="$place/run"
    [ -z "$s3" ] || run="s3://bucket/run-$size"
    "$bin/examples/aggregation_input" "$place/config" "$run" "$size"
    found=$(peak "$bin/salmon" run preferences --config "$place/config/salmon.toml" --run "$run")
    grep -q "preferences: $size rows" "$place/log" || { cat "$place/log" >&2; exit 1; }
    read -r mib seconds <<<"$found"
    printf '%12s%12s%14s%10s%12s\n' "$size" "$seconds" "$((size / (seconds > 0 ? seconds : 1)))" "$mib" "$([ -n "$s3" ] && echo S3 || echo disk)"
    rm -rf "$place/run" "$place/s3/bucket/run-$size"
  done
done
