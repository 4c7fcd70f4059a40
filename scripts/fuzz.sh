#!/bin/sh
# Builds the fuzz targets and runs them one after the other, each for FUZZ_SECONDS (600); `scripts/fuzz.sh sql manifest`
# runs these two. A crash stops with the file that made it, in fuzz/artifacts. LIBTORCH must be set, as for cargo.
set -eu
cd "$(dirname "$0")/../fuzz"
seconds=${FUZZ_SECONDS:-600}
# A folder of its own: some dependencies are compiled with counters.
target=${FUZZ_TARGET_DIR:-$PWD/target}
RUSTC_WRAPPER=$PWD/instrument.sh CARGO_TARGET_DIR=$target cargo build --locked
[ -d corpus ] || {
    CARGO_TARGET_DIR=$target cargo build --locked --manifest-path ../Cargo.toml --bin salmon
    ./seed.sh "$target/debug/salmon"
}
# Every input is written to a file; in memory where the system has such a folder.
TMPDIR=$(mktemp -d -p "$([ -d /dev/shm ] && echo /dev/shm || echo /tmp)" salmon-fuzz.XXXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT INT TERM
[ $# -gt 0 ] || set -- $(sed -n 's/^name = "\(.*\)"$/\1/p' Cargo.toml | tail -n +2)
for name in "$@"; do
    echo "fuzz: $name, $seconds s" >&2
    mkdir -p "artifacts/$name"
    # A chat template may write 64 MiB and hold some such texts; nothing here waits for anything.
    "$target/debug/$name" "corpus/$name" -artifact_prefix="artifacts/$name/" -max_total_time="$seconds" \
        -timeout=60 -rss_limit_mb=6144 -malloc_limit_mb=6144 -max_len=60000 -print_final_stats=1
done
