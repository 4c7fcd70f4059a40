# Two commands for a fresh machine: `make demo` runs the whole pipeline on the embedded toy world,
# `make test` runs every test. Both find or fetch libtorch first (scripts/libtorch.sh).
# `make conformance` runs the store's tests against a second S3 server (scripts/conformance).
# `make interop` holds exports against the Python programs that read them (scripts/interop); `make clients` asks a server
# with the clients that people have (scripts/clients); `make fuzz` throws damaged bytes at every parser; `make bench`
# measures salmon beside other programs (benches).
.PHONY: demo test build lint interop bench clients chaos conformance fuzz setup

TARGET := $(or $(CARGO_TARGET_DIR),target)
SALMON := $(TARGET)/debug/salmon

demo: build
	$(SALMON) demo

test: setup
	LIBTORCH="$$(scripts/libtorch.sh)" cargo test --locked

build: setup
	LIBTORCH="$$(scripts/libtorch.sh)" cargo build --locked

lint: setup
	cargo fmt --check
	LIBTORCH="$$(scripts/libtorch.sh)" cargo clippy --locked --all-targets --all-features -- -D warnings

interop: build
	LIBTORCH="$$(scripts/libtorch.sh)" cargo build --locked --example logprobs
	scripts/interop/run.sh

# Speed against transformers, CTranslate2 and TRL, and against the machine's limits: hours; BENCH="rollouts judging" and
# BENCH_ROUNDS=1 for less (benches/run.sh).
bench: setup
	LIBTORCH="$$(scripts/libtorch.sh)" cargo build --locked --release --features bench --example bench
	benches/run.sh

# `salmon serve` against ADBC, psycopg, psql and a browser (scripts/clients).
clients: build
	scripts/clients/run.sh

# The store's tests against another S3 server: moto's, or that of SALMON_CONFORMANCE_URL.
conformance: setup
	scripts/conformance/run.sh

# 200 kills on disk, on S3 and on S3 behind faults, full disks, clock jumps (docs/reliability.md); CHAOS_KILLS=20 for a
# short one.
chaos: setup
	LIBTORCH="$$(scripts/libtorch.sh)" cargo build --locked --bin salmon --example chaos --example s3_server
	$(TARGET)/debug/examples/chaos

# FUZZ_SECONDS=60 for each target, 600 by default.
fuzz: setup
	LIBTORCH="$$(scripts/libtorch.sh)" scripts/fuzz.sh

setup:
	@command -v cargo >/dev/null || { echo "salmon set-up: cargo is missing; install Rust from https://rustup.rs" >&2; exit 1; }
	@command -v g++ >/dev/null || { echo "salmon set-up: g++ is missing; install it (Debian: apt-get install g++)" >&2; exit 1; }
	@scripts/libtorch.sh >/dev/null
