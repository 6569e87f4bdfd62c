#!/usr/bin/env bash
# Holds a live server against its own contract with schemathesis: starts one on a free port with a data dir that is thrown
# away, sends what /openapi.json calls valid and what it calls invalid, and stops it by its pid. Arguments are passed on.
# MAX_EXAMPLES (default 25) says how hard it tries; TILLSTREAM_BIN which binary; TILLSTREAM_SEED makes a run repeatable.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${TILLSTREAM_SERVERS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/tillstream/servers}
wanted=schemathesis==4.32.5
target=$cache/schemathesis
run=$target/bin/schemathesis
binary=${TILLSTREAM_BIN:-target/release/tillstream}

complete() { [ "$(cat "$target.complete" 2>/dev/null)" = "$wanted" ] && [ -x "$run" ]; }

need() { command -v "$1" >/dev/null 2>&1 || { echo "schemathesis: '$1' is missing: $2" >&2; exit 1; }; }
need python3 "install Python 3 with its venv module, such as the package python3-venv"
need curl "install the package curl"
need flock "install the package util-linux"
[ -x "$binary" ] || { echo "schemathesis: $binary is missing: run 'make build', or set TILLSTREAM_BIN" >&2; exit 1; }

if ! complete; then
    mkdir -p "$cache"
    exec 9>"$cache/.schemathesis.lock"
    flock 9 # a second run waits, then finds the marker
    if ! complete; then
        echo "schemathesis: installing $wanted (once)" >&2
        rm -rf "$target" "$target.complete"
        log=$cache/schemathesis.log
        if ! { python3 -m venv "$target" && "$target/bin/python" -m pip install --quiet "$wanted"; } >"$log" 2>&1; then
            tail -n 20 "$log" >&2
            echo "schemathesis: it could not be installed; the whole output is in $log" >&2
            exit 1
        fi
        rm -f "$log"
        echo "$wanted" >"$target.complete"
    fi
fi

home=$(mktemp -d)
pid=
finish() {
    if [ -n "$pid" ]; then
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    fi
    rm -rf "$home"
}
trap finish EXIT

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export TILLSTREAM_DEMO_KEY=till_schemathesis_0123456789abcdef
"$binary" serve --data-dir "$home/data" --http "127.0.0.1:$port" >"$home/server.log" 2>&1 &
pid=$!
url=http://127.0.0.1:$port
for _ in $(seq 1 600); do
    curl -sf "$url/readyz" >/dev/null 2>&1 && break
    kill -0 "$pid" 2>/dev/null || { cat "$home/server.log" >&2; echo "schemathesis: the server ended" >&2; exit 1; }
    read -rt 0.1 <> <(:) || true
done

OWN_KEY_ID=$(curl -sf -H "Authorization: Bearer $TILLSTREAM_DEMO_KEY" "$url/v1/keys" |
    python3 -c 'import json, sys; print(next(it["id"] for it in json.load(sys.stdin)["data"] if it["current"]))')
export OWN_KEY_ID

status=0
"$run" --config-file ops/dev/schemathesis/schemathesis.toml run "$url/openapi.json" \
    --header "Authorization: Bearer $TILLSTREAM_DEMO_KEY" \
    --max-examples "${MAX_EXAMPLES:-25}" ${TILLSTREAM_SEED:+--seed "$TILLSTREAM_SEED"} "$@" || status=$?

# Whatever was sent, the server is up and takes orders.
kill -0 "$pid" 2>/dev/null && curl -sf "$url/readyz" >/dev/null || {
    tail -n 50 "$home/server.log" >&2
    echo "schemathesis: the server did not stay up" >&2
    exit 1
}
exit "$status"
