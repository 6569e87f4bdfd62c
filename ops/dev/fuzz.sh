#!/usr/bin/env bash
# Fuzzes with libFuzzer, guided by coverage: fuzz.sh run TARGET|all SECONDS, or fuzz.sh replay TARGET FILE.
# The compiler's coverage passes work on the stable toolchain; nothing but g++ is needed beside it.
set -euo pipefail
cd "$(dirname "$0")/../.."

host=$(rustc -vV | sed -n 's/^host: //p')
binary=target/guided/$host/fuzz/guided

build() {
    RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" \
        "${CARGO:-cargo}" build --locked --profile fuzz --target "$host" --target-dir target/guided \
        -p tillstream-fuzz --features guided --bin guided
}

targets() {
    find tests/fuzz/corpus -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | sort
}

# Runs one target, then takes into the corpus what covers something new, and no more of it.
fuzz() {
    local target=$1 limit=$2 found=target/fuzz/found/$1
    [ -d "tests/fuzz/corpus/$target" ] || { echo "no target $target; there are:" $(targets) >&2; exit 2; }
    mkdir -p "$found" target/fuzz/crashes
    export TILLSTREAM_FUZZ_TARGET=$target
    if ! "$binary" -max_total_time="$limit" -max_len=4096 -timeout=30 -rss_limit_mb=4096 -print_final_stats=1 \
        -artifact_prefix="target/fuzz/crashes/$target-" "$found" "tests/fuzz/corpus/$target"; then
        echo "$target: an input fails; run it again with: make fuzz-replay TARGET=$target INPUT=target/fuzz/crashes/$target-…" >&2
        echo "once it is mended, keep it: mv the file into tests/fuzz/corpus/$target under a name that says what it shows" >&2
        exit 1
    fi
    "$binary" -merge=1 "tests/fuzz/corpus/$target" "$found" 2>&1 | tail -1
    rm -rf "$found"
}

case ${1-} in
run)
    build
    if [ "$2" = all ]; then
        for target in $(targets); do fuzz "$target" "$3"; done
    else
        fuzz "$2" "$3"
    fi
    ;;
replay)
    build
    TILLSTREAM_FUZZ_TARGET=$2 "$binary" "$3"
    ;;
*)
    echo "usage: fuzz.sh run TARGET|all SECONDS, or fuzz.sh replay TARGET FILE" >&2
    exit 2
    ;;
esac
