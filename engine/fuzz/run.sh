#!/usr/bin/env bash
# Fuzzes one target without cargo-fuzz: `engine/fuzz/run.sh TARGET SECONDS [libFuzzer option...]`, with a nightly compiler
# and a C++ compiler. Inputs that it finds go to CORPUS, by default below the target directory; `seeds` is only read.
set -euo pipefail
target=$1 seconds=$2
shift 2
cd "$(dirname "$0")"
directory=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
corpus=${CORPUS:-$directory/corpus/$target}
mkdir -p "$corpus" "$directory/artifacts"
triple=$(rustc -vV | sed -n 's/^host: //p')
# The flags of cargo-fuzz, without the address sanitizer: the engine's unsafe code is its SIMD leaves alone.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=8"
# The dev profile has debug assertions and overflow checks.
export CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=0
CARGO_TARGET_DIR=$directory cargo +nightly build --target "$triple" --bin "$target"
seeds=()
if [ -d "seeds/$target" ]; then seeds=("seeds/$target"); fi
exec "$directory/$triple/debug/$target" "-max_total_time=$seconds" "-artifact_prefix=$directory/artifacts/" \
  -print_final_stats=1 -rss_limit_mb=4096 "$@" "$corpus" "${seeds[@]}"
