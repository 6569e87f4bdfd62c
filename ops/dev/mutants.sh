#!/usr/bin/env bash
# Takes the rules of the cluster protocol out, one after the other, and expects a test to fail: each patch of
# tests/mutants is applied to a copy of the workspace. Prints a table; fails when a mutant survives or a patch no longer
# applies. Arguments: names of mutants (default: all). MUTANTS_DIR keeps the copy and its build between runs.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=${MUTANTS_DIR:-$(mktemp -d)}
[ -n "${MUTANTS_DIR:-}" ] || trap 'rm -rf "$dir"' EXIT
copy=$dir/workspace
mkdir -p "$copy"
# Every file is as old as this run: what an earlier one has built of a mutant is built again.
fresh() { tar -C "$root" --exclude=./target --exclude=./.git --exclude=./tillstream-data -cf - . | tar -C "$copy" -xmf -; }
fresh
cd "$copy" || exit 1
# One line changes from build to build.
export CARGO_INCREMENTAL=1
export CARGO_TARGET_DIR=$dir/target
export RUST_BACKTRACE=0
# The quick tests first, but not the one that looks at the patches; random histories only where those see nothing. A mutant may wait for ever: that is a failure too.
build() { timeout 1800 cargo test -p tillstream-cluster --lib --test protocol --locked --no-run >"$dir/out" 2>&1; }
run() {
    timeout 240 cargo test -p tillstream-cluster --lib --test protocol --locked -- --skip histories --skip mutants:: >"$dir/out" 2>&1 &&
        timeout 600 cargo test -p tillstream-cluster --test protocol --locked -- histories >"$dir/out" 2>&1
}
if ! build || ! run; then
    echo "mutants: the tests fail without any mutant:" >&2
    grep -aE '^error|FAILED|panicked' "$dir/out" >&2
    exit 1
fi
echo '| rule | mutant | caught by | s |'
echo '|---|---|---|---|'
bad=0
if [ $# -gt 0 ]; then patches=("${@/%/.patch}"); else patches=($(cd "$root/tests/mutants" && ls -- *.patch)); fi
for name in "${patches[@]}"; do
    patch=$root/tests/mutants/$name
    rule=$(sed -n 's/^Rule: //p;1q' "$patch")
    files=$(sed -n 's/^+++ b\///p' "$patch")
    began=$SECONDS
    if ! patch -p1 --silent --fuzz=0 <"$patch" >/dev/null 2>&1; then
        caught='**the patch does not apply**'
        bad=1
    elif ! build; then
        caught='**it does not compile**'
        bad=1
    elif run; then
        caught='**nothing: it survives**'
        bad=1
    else
        caught=$(sed -n 's/^test \(.*\) \.\.\. FAILED.*/`\1`/p' "$dir/out" | head -1)
        [ -n "$caught" ] || caught='a test that waits for ever'
    fi
    for file in $files; do cp "$root/$file" "$copy/$file"; done
    find "$copy" -name '*.rej' -o -name '*.orig' | xargs -r rm -f
    echo "| $rule | ${name%.patch} | $caught | $((SECONDS - began)) |"
done
exit $bad
