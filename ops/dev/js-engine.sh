#!/usr/bin/env bash
# Builds the engine for rules in JavaScript and holds it against rules/javascript/NAME.wasm: QuickJS-NG's C source and
# the shim in rules/javascript/engine, linked, started once, and kept as it stands then. Needed only for a new engine:
# one that is there is never touched, since rules name it. What is made is the same for the same tools.
# Needs: clang and wasm-ld 14, wasi-libc, clang's builtins for wasm32 (Debian: clang lld wasi-libc libclang-rt-dev-wasm32).
set -euo pipefail
name=${1:?name the engine, such as javascript-1}
root=$(cd "$(dirname "$0")/../.." && pwd)
engine=$root/rules/javascript/engine
out=$engine/target/c
mkdir -p "$out"

quickjs=$(cd "$engine" && cargo metadata --locked --format-version 1 |
    grep -o '"manifest_path":"[^"]*/rquickjs-sys-[^"]*"' | sed -E 's/.*:"(.*)\/Cargo.toml"/\1/')/quickjs
builtins=$(clang --target=wasm32-wasi --print-libgcc-file-name)
libc=/usr/lib/wasm32-wasi/libc.a

objects=()
for source in "$quickjs"/{quickjs,libregexp,libunicode,dtoa}.c "$engine/quickjs.c"; do
    object=$out/$(basename "$(dirname "$source")")-$(basename "$source" .c).o
    clang --target=wasm32-wasi -O2 -DNDEBUG -D_GNU_SOURCE -DQUICKJS_NG_BUILD -I"$quickjs" -I/usr/include/wasm32-wasi \
        -ffile-prefix-map="$quickjs"=quickjs -ffile-prefix-map="$engine"=engine -fno-strict-aliasing \
        -Wno-implicit-const-int-float-conversion -c "$source" -o "$object"
    objects+=("-Clink-arg=$object")
done

flags=("${objects[@]}" "-Clink-arg=$libc" "-Clink-arg=$builtins"
    "--remap-path-prefix=$HOME=/" "--remap-path-prefix=$root=/")
# The objects are none of cargo's business: without this it would not link them anew.
(cd "$engine" && cargo clean --quiet --release --target wasm32-unknown-unknown -p tillstream-javascript)
(cd "$engine" && CARGO_ENCODED_RUSTFLAGS=$(printf '%s\x1f' "${flags[@]}" | sed 's/\x1f$//') \
    cargo build --release --locked --target wasm32-unknown-unknown)

cd "$root"
built=$engine/target/$name.wasm
cargo run --locked -p tillstream-rule-engine --example javascript_engine -- \
    "$engine/target/wasm32-unknown-unknown/release/tillstream_javascript.wasm" "$built"
kept=rules/javascript/$name.wasm
if [ ! -e "$kept" ]; then
    cp "$built" "$kept"
    echo "$kept is new; name it in rules/engine/src/source.rs"
elif cmp -s "$built" "$kept"; then
    echo "$kept is what was built"
else
    echo "$kept is another one than what was built: other tools, or a change that wants a new name" >&2
    exit 1
fi
