#!/usr/bin/env bash
# A Python environment with other people's libraries, for tests of interoperability, in the same cache folder as the
# servers' jars: Kafka and Avro clients, or with the argument `webhooks` the reference library of Standard Webhooks.
# Prints the path of its python; says nothing else when all is there.
set -euo pipefail
cache=${TILLSTREAM_SERVERS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/tillstream/servers}
case "${1:-}" in
webhooks)
    packages=(standardwebhooks==1.1.0)
    target=$cache/python-webhooks
    ;;
*)
    packages=(confluent-kafka==2.12.2 fastavro==1.12.1)
    target=$cache/python
    ;;
esac
python=$target/bin/python
wanted="${packages[*]}"

complete() { [ "$(cat "$target.complete" 2>/dev/null)" = "$wanted" ] && [ -x "$python" ]; }

if ! complete; then
    need() { command -v "$1" >/dev/null 2>&1 || { echo "python: '$1' is missing: $2" >&2; exit 1; }; }
    need python3 "install Python 3 with its venv module, such as the package python3-venv"
    need flock "install the package util-linux"
    mkdir -p "$cache"
    exec 9>"$cache/.python.lock"
    flock 9 # a second run waits, then finds the marker
    if ! complete; then
        echo "python: installing $wanted (once)" >&2
        rm -rf "$target" "$target.complete"
        log=$cache/python.log
        if ! { python3 -m venv "$target" && "$python" -m pip install --quiet "${packages[@]}"; } >"$log" 2>&1; then
            tail -n 20 "$log" >&2
            echo "python: the environment could not be made; the whole output is in $log" >&2
            exit 1
        fi
        rm -f "$log"
        echo "$wanted" >"$target.complete"
    fi
fi

# kcat is a system package: only root can add it, and only a machine that is thrown away should have it added unasked.
if [ "${1:-}" != webhooks ] && ! command -v kcat >/dev/null 2>&1; then
    if [ "${TILLSTREAM_INSTALL_KCAT:-0}" = 1 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get install -y -qq kcat >/dev/null 2>&1 || echo "python: kcat could not be installed; its tests are skipped" >&2
    else
        echo "python: kcat is not here and its tests are skipped; as root, TILLSTREAM_INSTALL_KCAT=1 installs it" >&2
    fi
fi
echo "$python"
