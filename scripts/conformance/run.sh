#!/usr/bin/env bash
# make conformance: the store's conformance suite and a whole run against other S3 servers.
#
# Without SALMON_CONFORMANCE_URL against moto's server, in a Python environment of its own that is made once per machine.
# With it (s3://bucket/prefix, and the AWS_* variables that reach it) against that store; it writes below the prefix and
# deletes what it wrote.
set -euo pipefail
cd "$(dirname "$0")/../.."
say() { echo "salmon conformance: $*" >&2; }
die() { say "$*"; exit 1; }

suite() {
  say "$1"
  for test in at_a_url a_run_at_a_url; do
    LIBTORCH="$(scripts/libtorch.sh)" cargo test --locked --test behaviour -- --exact "store_conformance::$test" --nocapture
  done
}

if [ -n "${SALMON_CONFORMANCE_URL:-}" ]; then suite "$SALMON_CONFORMANCE_URL"; exit 0; fi

folder=$(scripts/python.sh conformance)

# The server takes a free port and says which; it ends with this script.
log=$(mktemp)
"$folder/bin/moto_server" --host 127.0.0.1 --port 0 >"$log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null || true; rm -f "$log"' EXIT
for _ in $(seq 100); do
  endpoint=$(grep -o 'http://127.0.0.1:[0-9]*' "$log" | head -n 1 || true)
  if [ -n "$endpoint" ]; then break; fi
  kill -0 $server 2>/dev/null || { cat "$log" >&2; die "moto's server did not start"; }
  sleep 0.2
done
[ -n "${endpoint:-}" ] || die "moto's server does not say where it listens"
export AWS_ACCESS_KEY_ID=conformance AWS_SECRET_ACCESS_KEY=conformance-secret AWS_REGION=us-east-1
export AWS_ENDPOINT_URL="$endpoint"
python3 - "$endpoint/conformance" <<'PYTHON'
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="PUT"))
PYTHON
export SALMON_CONFORMANCE_URL="s3://conformance/größe 1"
suite "moto $("$folder/bin/python" -c 'import moto; print(moto.__version__)') at $endpoint"
