#!/usr/bin/env bash
# Speed of SQL against DataFusion, DuckDB and Polars on the same Parquet, and of the aggregation against Python.
#
#   benches/sql.sh [ROWS] [ROUNDS]       1000000 judgments and 3 rounds by default
#
# SALMON=program measures that build instead of the dev profile's, EXAMPLES=folder says where its aggregation_input lies.
# PYTHON=python3 has the packages datafusion, duckdb, polars, pyarrow and numpy; without it they go into a virtual
# environment of the script. DataFusion's Python binding stands for datafusion-cli: the same engine of the same version,
# without compiling one more program.
#
# examples/aggregation_input.rs fills a run with made-up judgments, two responses of 1 KB in each row; `salmon run preferences`
# makes a label per judgment of them. benches/sql.py then asks every engine the same statements, compares the rows, and
# prints medians; benches/aggregation.py is the Python. 10 million rows take some 15 GB of disk for the time.
set -euo pipefail
cd "$(dirname "$0")/.."
rows="${1:-1000000}"
rounds="${2:-3}"
if [ -z "${SALMON:-}" ]; then
  LIBTORCH="$(scripts/libtorch.sh)"
  export LIBTORCH
  cargo build --locked --quiet --bin salmon --example aggregation_input
  SALMON="${CARGO_TARGET_DIR:-target}/debug/salmon"
fi
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT
if [ -z "${PYTHON:-}" ]; then
  python3 -m venv "$place/venv"
  PYTHON="$place/venv/bin/python"
  "$PYTHON" -m pip install --quiet 'datafusion==55.*' duckdb polars pyarrow numpy
fi
. benches/peak.sh
# As many rows of preferences as of judgments: ten passes, ten principles.
"${EXAMPLES:-$(dirname "$SALMON")/examples}/aggregation_input" "$place/config" "$place/run" "$rows"
found=$(peak "$SALMON" run preferences --config "$place/config/salmon.toml" --run "$place/run")
grep -q "preferences: $rows rows" "$place/log" || { cat "$place/log" >&2; exit 1; }
read -r mib seconds <<<"$found"
mkdir -p "$place/run/peers"
echo "load $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) cores"
echo "stage preferences: $rows rows in $seconds s, $((rows / (seconds > 0 ? seconds : 1))) rows/s, peak $mib MiB"
"$PYTHON" benches/aggregation.py "$place/run"
"$PYTHON" benches/sql.py "$place/run" "$SALMON" "$rounds"
# Start-up: the smallest statement as a whole process, in turns.
"$PYTHON" - "$SALMON" "$place/run" <<'PYTHON'
import statistics, subprocess, sys, time
salmon, run = sys.argv[1:]
peer = [sys.executable, "-c"]
commands = {
    "salmon": [salmon, "sql", "--run", run, "-c", "select 1"],
    "DataFusion (Python)": [*peer, "import datafusion; datafusion.SessionContext().sql('select 1').show()"],
    "DuckDB (Python)": [*peer, "import duckdb; duckdb.sql('select 1').show()"],
    "Polars (Python)": [*peer, "import polars; print(polars.sql('select 1').collect())"],
    "Python alone": [*peer, "pass"],
}
seconds = {name: [] for name in commands}
for turn in range(11):
    for name, command in commands.items():
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        if turn:
            seconds[name].append(time.perf_counter() - start)
print("start-up, ms:", ", ".join(f"{name} {1000 * statistics.median(times):.0f}" for name, times in seconds.items()))
PYTHON
