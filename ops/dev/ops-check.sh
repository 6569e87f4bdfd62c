#!/usr/bin/env bash
# The compose file by the loader of Docker Compose itself (its JSON schema, merges, dependencies), alerts and their tests
# by promtool. Each where its tool is here; set TILLSTREAM_REQUIRE_OPS_TOOLS=1 to make a missing one an error. What needs
# no tool is checked by tests/ops.rs.
set -euo pipefail
compose_go=github.com/compose-spec/compose-go/v2/cmd@v2.16.2

missing() {
    echo "ops-check: NOT CHECKED: $1" >&2
    [ "${TILLSTREAM_REQUIRE_OPS_TOOLS:-0}" != 1 ] || exit 1
}

promtool=$(ops/dev/promtool.sh)
if [ -n "$promtool" ]; then
    "$promtool" check config ops/prometheus/prometheus.yml
    "$promtool" test rules ops/prometheus/alerts_test.yml
else
    missing "alerts: promtool is not here (Debian: apt-get install prometheus)"
fi

if ! command -v go >/dev/null 2>&1; then
    missing "docker-compose.yml against the Compose Specification: go is not here"
else
    # Built once, outside of the repository; without a network, an earlier build does.
    bin=${XDG_CACHE_HOME:-$HOME/.cache}/tillstream/compose-go-2.16.2
    if [ -x "$bin/cmd" ] || GOFLAGS='' GOBIN=$bin go install "$compose_go" >/dev/null 2>&1; then
        "$bin/cmd" docker-compose.yml >/dev/null
        echo "ops-check: docker-compose.yml conforms to the Compose Specification"
    else
        missing "docker-compose.yml against the Compose Specification: $compose_go cannot be built from here"
    fi
fi
