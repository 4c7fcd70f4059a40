#!/bin/sh
# A wrapper of rustc (RUSTC_WRAPPER): counts branches, for libFuzzer to see, in the crates that read untrusted bytes and
# leaves the others as they are, which keeps the build short. These options need no unstable compiler.
case " $* " in
*" --crate-name salmon "*|*" --crate-name salmon_fuzz "*|*" --crate-name safetensors "*|*" --crate-name minijinja "*|\
*" --crate-name minijinja_contrib "*|*" --crate-name serde_json "*|*" --crate-name toml_parser "*|*" --crate-name toml "*|\
*" --crate-name csv_core "*|*" --crate-name tokenizers "*|*" --crate-name sqlparser "*|*" --crate-name parquet "*)
    exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=16 --cfg fuzzing ;;
*)
    exec "$@" ;;
esac
