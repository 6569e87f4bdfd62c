#!/usr/bin/env bash
# Plants bugs in a copy of the workspace, one after the other (tests/mutants/world/*.patch, then the rules of the cluster
# protocol, tests/mutants/*.patch), and searches seeds of the simulated world until a history shows it. Prints a table with
# the number of seeds it took; fails when a bug survives or a patch no longer applies. Arguments: names of mutants (default:
# all). SEEDS: at most so many seeds each (default 10000). SECONDS_MAX: at most so long each (default 600).
# MUTANTS_DIR keeps the copy and its build between runs. PROFILE: how it is built (default gate; dev builds in a tenth of the
# time and runs at half the speed, which is the quicker where most bugs are seen at once).
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=${MUTANTS_DIR:-$(mktemp -d)}
[ -n "${MUTANTS_DIR:-}" ] || trap 'rm -rf "$dir"' EXIT
copy=$dir/workspace
mkdir -p "$copy" "$dir/target"
# What has not changed since the last run keeps its time, and is not built again.
(cd "$root" && find . \( -path ./target -o -path ./.git -o -path ./tillstream-data \) -prune -o \( -type f -o -type l \) -print) |
    while IFS= read -r file; do
        cmp -s "$root/$file" "$copy/$file" 2>/dev/null && continue
        mkdir -p "$copy/${file%/*}"
        cp -P --remove-destination "$root/$file" "$copy/$file"
    done
profile=${PROFILE:-gate}
folder=${profile/#dev/debug}
# What is not ours is built once.
if [ ! -d "$dir/target/$folder" ] && [ -d "$root/target/$folder" ]; then
    cp -al "$root/target/$folder" "$dir/target/"
    # What cargo knows of each build it writes in place: a link would tell the workspace of builds it never had.
    rm -rf "${dir:?}/target/$folder/.fingerprint"
    cp -a "$root/target/$folder/.fingerprint" "$dir/target/$folder/"
fi
cd "$copy" || exit 1
# One line changes from build to build.
export CARGO_INCREMENTAL=1
export CARGO_TARGET_DIR=$dir/target
case "$profile" in dev) what=(--workspace --bin simulate) ;; *) what=(-p tillstream-world) ;; esac
build() { cargo build --profile "$profile" "${what[@]}" --locked >"$dir/out" 2>&1; }
# A bug may also make a history go on for ever: that shows it, too.
run() { timeout "${SECONDS_MAX:-600}" "$dir/target/$folder/simulate" --brief ${embedded:+--embedded} --seeds "${SEEDS:-10000}" >"$dir/out" 2>&1; }
# Rules that no history of this world touches: there is one deployment, and nobody changes partition counts or cuts inputs.
apart=" input-cut input-gone offset-missing other-deployment other-partition-count partition-too-many rebuild-restart "
if ! build; then
    echo "simulate-mutants: it does not compile without any mutant:" >&2
    grep -aE '^error' "$dir/out" >&2
    exit 1
fi
echo '| rule | mutant | seeds | seen by | s |'
echo '|---|---|---|---|---|'
bad=0
cd "$root/tests/mutants" || exit 1
if [ $# -gt 0 ]; then
    patches=()
    for name in "$@"; do
        if [ -f "world/$name.patch" ]; then patches+=("world/$name.patch"); else patches+=("$name.patch"); fi
    done
else
    patches=(world/*.patch *.patch)
fi
cd "$copy" || exit 1
for name in "${patches[@]}"; do
    patch=$root/tests/mutants/$name
    short=$(basename "$name" .patch)
    rule=$(sed -n 's/^Rule: //p;1q' "$patch")
    case "$apart" in *" $short "*)
        echo "| $rule | $short | | not of this world: \`make mutants\` | |"
        continue
        ;;
    esac
    embedded=''
    # Bugs of the embedded store, and one that was found there.
    case "$short" in disk-* | effect-never-happened) embedded=yes ;; esac
    files=$(sed -n 's/^+++ b\///p' "$patch")
    began=$SECONDS
    seeds=''
    if ! patch -p1 --silent --fuzz=0 <"$patch" >/dev/null 2>&1; then
        seen='**the patch does not apply**'
        bad=1
    elif ! build; then
        seen='**it does not compile**'
        bad=1
    elif run; then
        seen='**nothing: it survives**'
        bad=1
    else
        seeds=$(cut -f1 "$dir/out" | tail -1)
        seen=$(cut -f2 "$dir/out" | tail -1 | tr '|' '/' | cut -c1-110)
        [ -n "$seeds" ] || seen='**nothing within its time**'
        [ -n "$seeds" ] || bad=1
    fi
    for file in $files; do cp "$root/$file" "$copy/$file"; done
    find "$copy" \( -name '*.rej' -o -name '*.orig' \) -print0 | xargs -0 -r rm -f
    echo "| $rule | $short | $seeds | $seen | $((SECONDS - began)) |"
done
exit $bad
