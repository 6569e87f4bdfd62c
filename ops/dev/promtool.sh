#!/usr/bin/env bash
# Prints the path of a promtool: the one that is installed, else the one in Debian's package, fetched once into the cache
# folder without installing anything. Where neither is to be had it prints nothing, and says so on standard error.
set -euo pipefail
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tillstream/promtool
promtool=$cache/promtool

if command -v promtool; then exit; fi
if [ ! -x "$promtool" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/.lock"
    flock 9 # a second run waits, then finds it
fi
if [ ! -x "$promtool" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    # apt checks what it fetches; unpacking it needs no root.
    if ! (cd "$work" && apt-get download prometheus && dpkg-deb -x prometheus_*.deb package) >"$work/log" 2>&1; then
        echo "promtool: it is not here, and apt-get cannot fetch it: $(tail -n 1 "$work/log")" >&2
        exit
    fi
    mv "$work/package/usr/bin/promtool" "$promtool"
fi
echo "$promtool"
