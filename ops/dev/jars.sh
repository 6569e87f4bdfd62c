#!/usr/bin/env bash
# Fetches the servers that tests and benchmarks start (Kafka, Cassandra, a schema registry) into one cache folder
# outside the checkout: $TILLSTREAM_SERVERS_DIR, or ~/.cache/tillstream/servers. Says nothing when all is there.
# Versions are those of ops/dev/servers/*.xml; a marker, written last, holds the checksum of the pom a folder was
# filled from, so that a changed pom is fetched again.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${TILLSTREAM_SERVERS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/tillstream/servers}
plugin=org.apache.maven.plugins:maven-dependency-plugin:3.8.1

# The pom's own version stands first in it, two blanks deep.
version() { sed -nE 's|^  <version>(.*)</version>$|\1|p' "$here/servers/$1.xml"; }

digest() { sha256sum <"$here/servers/$1.xml" | cut -c1-64; }
complete() { [ "$(cat "$cache/$1-$(version "$1").complete" 2>/dev/null)" = "$(digest "$1")" ]; }

whole=1
for name in kafka cassandra registry; do
    complete "$name" || whole=0
done
[ "$whole" = 0 ] || exit 0

need() { command -v "$1" >/dev/null 2>&1 || { echo "jars: '$1' is missing: $2" >&2; exit 1; }; }
need mvn "install Maven, such as the package maven; tests of the real servers need it once"
need java "install a Java 17 runtime, such as the package openjdk-17-jre-headless"
need flock "install the package util-linux"

mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9 # a second run waits, then finds the markers

for name in kafka cassandra registry; do
    complete "$name" && continue
    version=$(version "$name")
    target=$cache/$name-$version
    echo "jars: fetching $name $version (once)"
    rm -rf "$target" "$target.complete"
    if [ "$name" = registry ]; then goal=unpack-dependencies; else goal=copy-dependencies; fi
    log=$cache/$name.log
    if ! mvn -B -ntp -f "$here/servers/$name.xml" "$plugin:$goal" -DincludeScope=runtime \
        -DoutputDirectory="$target" -DmarkersDirectory="$target/.markers" >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        echo "jars: Maven could not fetch $name $version; its whole output is in $log" >&2
        exit 1
    fi
    rm -f "$log"
    digest "$name" >"$target.complete.new"
    mv "$target.complete.new" "$target.complete"
done
