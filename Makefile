# Two commands first: `make run` and `make test`. Both set up what is missing.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
DATA_DIR ?= tillstream-data
HTTP ?= 127.0.0.1:8080
CUTS ?= 500
HISTORIES ?= 200
SECONDS ?= 60
RATE ?= 500
OUTAGE ?= freeze
SEED ?= 1592590340
KEYS ?= 10000
MODULES ?= 10000
RULE ?=
JS_RULES ?= volume-discount carrier-choice
RULES ?= volume-discount split-by-location tiered-discount vat nearest-first fraud-score carrier-choice
STATES ?= 400
TARGET ?= all
# What `build` makes and the end-to-end tests run. `make test` takes the one that all its tests are built in (dev, which is
# optimized a little): everything is compiled once.
PROFILE ?= release
built = target/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
bin = $(built)/tillstream
# The tests of a folder, by name. They are built as a part of the whole workspace, not by their package: a package alone has
# other features of its libraries, and would have them compiled again.
tests_in = $(sort $(basename $(notdir $(wildcard $(1)/*.rs))) $(notdir $(patsubst %/main.rs,%,$(wildcard $(1)/*/main.rs))))
e2e_tests = $(call tests_in,tests/e2e/tests)
cluster_tests = $(call tests_in,tests/cluster/tests)
# Compiles what the profile is for: with the tests, the binary and the simulated world, or what is asked for.
compile = $(CARGO) $(if $(filter dev,$(PROFILE)),test --workspace --no-run --locked,build --profile $(PROFILE) --locked $(if $(filter gate,$(PROFILE)),-p tillstream -p tillstream-world,$(1)))
run_tests = TILLSTREAM_BIN=$(CURDIR)/$(bin) $(CARGO) test --workspace --locked --no-fail-fast $(addprefix --test ,$(1))
YARDSTICK ?= ../shared/yardstick/kafka-streams
export CARGO_TERM_COLOR ?= auto
# Whole runs build each crate once: a cache for the next edit would only double what they need of the disk.
export CARGO_INCREMENTAL ?= 0

.PHONY: help run build test setup jars servers fmt fmt-check lint deny ops-check unit crates e2e cluster cluster-histories cluster-rest chaos fuzz fuzz-some fuzz-replay mutants schemathesis simulation simulate simulate-some replay simulate-mutants chaos-cluster outage bench bench-http bench-takeover bench-cluster bench-commit rules js-engine bench-rules hostile-rules clean

help: ## Says what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: jars ## Checks the toolchain, adds rustfmt, clippy, cargo-deny and the real servers where they are missing
	@ops/dev/setup.sh

jars:
	@ops/dev/jars.sh

build: ## Builds the binary in release (PROFILE=gate: without link-time optimization; PROFILE=dev: with the tests, as `make test`)
	$(call compile)

run: build ## Starts the whole pipeline on the embedded store at $(HTTP)
	exec $(bin) serve --data-dir $(DATA_DIR) --http $(HTTP)

fmt: ## Formats the code
	$(CARGO) fmt --all

fmt-check:
	$(CARGO) fmt --all --check

lint: fmt-check ## rustfmt and clippy, warnings denied, of the example rules too
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	cd rules/examples && $(CARGO) fmt --all --check && $(CARGO) clippy --workspace --all-targets --locked -- -D warnings

deny: ## Licences, bans, sources; advisories where their database can be reached
	@ops/dev/deny.sh

ops-check: ## The compose file and the alerts, by the tools of their makers where those are installed
	@ops/dev/ops-check.sh

unit: ## Every test but the end-to-end ones, the fuzz corpus and those that start real servers
	$(CARGO) test --workspace --exclude tillstream-fuzz --exclude tillstream-e2e --exclude tillstream-e2e-cluster --exclude tillstream-servers --exclude tillstream-kafka --exclude tillstream-scylla --exclude tillstream-registry --locked

servers: jars ## The clients of broker, database and registry on real servers, and the servers themselves
	$(CARGO) test -p tillstream-servers -p tillstream-kafka -p tillstream-scylla -p tillstream-registry --locked -- --test-threads=2

crates: jars ## Every test but the end-to-end ones, in one build: `unit`, `fuzz-some` and `servers`
	TILLSTREAM_FUZZ_SECONDS=3 RUST_TEST_THREADS=2 $(CARGO) test --workspace --exclude tillstream-e2e --exclude tillstream-e2e-cluster --locked --no-fail-fast

e2e: build rules ## The real binary: first run, import, crashes, bad input, tenants' rules
	TILLSTREAM_PROMTOOL=$$(ops/dev/promtool.sh) $(call run_tests,$(e2e_tests)) -- --test-threads=1

cluster: build jars ## The real binary on the real servers: 25 histories of faults, repairs, live streams, webhooks and backtests, TLS and logins, other people's clients
	$(call run_tests,$(cluster_tests)) --no-run
	$(CARGO) test --workspace --locked --lib --quiet -- audit::tests takeover::tests >/dev/null
	@$(MAKE) --no-print-directory -j2 PROFILE=$(PROFILE) cluster-histories cluster-rest

# Two lanes, each with servers of its own: much of either is waiting.
cluster-histories:
	$(call run_tests,histories) -- --nocapture

cluster-rest:
	$(call run_tests,$(filter-out histories,$(cluster_tests))) -- --test-threads=1 --nocapture

test: PROFILE = dev
test: setup lint deny ops-check crates simulate-some e2e cluster ## Everything that gates a change

schemathesis: build ## A live server against its own contract, by the tool of that name: what it calls valid and what it calls invalid
	@ops/dev/schemathesis.sh

chaos: build ## Kills the real binary CUTS times (default 500) at random and CUTS times inside a group commit; then STATES crashes of its disk (default 400)
	TILLSTREAM_CUTS=$(CUTS) $(call run_tests,crash) -- --nocapture
	TILLSTREAM_STATES=$(STATES) TILLSTREAM_ORDERS=600 TILLSTREAM_FAULTS=20 $(call run_tests,disk faults) -- --nocapture

fuzz: ## Fuzzes TARGET (default: each) for SECONDS (default 60), guided by coverage, and keeps inputs that cover something new
	@ops/dev/fuzz.sh run $(TARGET) $(SECONDS)

fuzz-some: ## The fuzz corpus, and mutations of it by a fixed seed for 3 s a target
	TILLSTREAM_FUZZ_SECONDS=3 $(CARGO) test -p tillstream-fuzz --locked -- --test-threads=1

fuzz-replay: ## Runs TARGET once on the file INPUT
	@ops/dev/fuzz.sh replay $(TARGET) $(INPUT)

chaos-cluster: build jars ## HISTORIES histories of faults on the real servers (default 200), from SEED
	TILLSTREAM_HISTORIES=$(HISTORIES) TILLSTREAM_SEED=$(SEED) $(call run_tests,histories) -- --nocapture

outage: build jars ## The database is away for SECONDS (default 60) under RATE orders/s (default 500); OUTAGE=kill kills it, else it is frozen
	TILLSTREAM_OUTAGE_SECONDS=$(SECONDS) TILLSTREAM_OUTAGE_RATE=$(RATE) TILLSTREAM_OUTAGE_KILL=$(if $(filter kill,$(OUTAGE)),1,0) \
		$(call run_tests,database_outage) -- --nocapture

mutants: ## Takes each rule of the cluster protocol out and expects a test to fail (some 20 minutes)
	@ops/dev/mutants.sh

simulation:
	$(call compile,-p tillstream-world)

simulate: simulation ## Searches SEEDS seeds of the simulated world for a history that breaks a promise (until stopped when absent; EMBEDDED=1: on the embedded store alone)
	$(built)/simulate $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FROM),--from $(FROM)) $(if $(EMBEDDED),--embedded)

simulate-some: simulation
	$(built)/simulate --seeds 2000

replay: simulation ## Tells what happens in the history of SEED, made as short as it can be if it fails
	$(built)/simulate --replay $(SEED) $(if $(EMBEDDED),--embedded)

simulate-mutants: ## Plants bugs and prints how many seeds it takes to see each (an hour or two)
	@ops/dev/simulate-mutants.sh

bench: build ## Orders/s, CPU per order, latency, memory, cost of each stage
	$(CARGO) build --release --locked -p tillstream-loadtest
	target/release/tillstream-bench drain
	target/release/tillstream-bench http --bin $(bin)
	target/release/tillstream-bench latency --bin $(bin)

bench-http: build ## Posts/s, bulk orders/s, CPU per request, p50/p99, beside a bare durable door; RULE=module.wasm measures with it as well
	$(CARGO) build --release --locked -p tillstream-loadtest
	target/release/tillstream-bench http --bin $(bin) $(if $(RULE),--rule $(RULE))

bench-cluster: build jars ## Cluster mode beside the Kafka Streams yardstick ($(YARDSTICK)): orders/s, CPU, latency, memory
	$(CARGO) build --release --locked -p tillstream-loadtest
	target/release/tillstream-bench cluster --bin $(bin) --yardstick $(YARDSTICK)

bench-commit: build jars ## The bare commit at 10 to 5,000 records, beside the pipeline's own
	$(CARGO) build --release --locked -p tillstream-loadtest
	target/release/tillstream-bench commit --bin $(bin)

bench-takeover: build jars ## From kill -9 of a worker to the first new commit on its partitions, with KEYS keys of state (default 10000)
	$(CARGO) build --release --locked -p tillstream-e2e-cluster
	TILLSTREAM_BIN=$(CURDIR)/$(bin) TILLSTREAM_KEYS=$(KEYS) target/release/takeover

rules: build ## Builds the example rules as components (rules/examples/target/NAME.wasm), and runs their tests and fixtures
	@ops/dev/setup.sh
	cd rules/examples && $(CARGO) test --lib --locked
	for rule in $(RULES); do \
		$(bin) rules test rules/examples/$$rule; \
		$(bin) rules validate rules/examples/target/$$rule.wasm; \
	done
	for rule in $(JS_RULES); do \
		$(bin) rules test rules/javascript/examples/$$rule; \
		$(bin) rules validate rules/javascript/examples/$$rule/target/$$rule.js; \
		if command -v node >/dev/null; then (cd rules/javascript/examples/$$rule && node --test); fi; \
	done

js-engine: ## Builds the engine for rules in JavaScript anew (needs clang 14 and wasi-libc), and says whether it is the one that is kept
	@ops/dev/js-engine.sh javascript-1

bench-rules: rules ## What a call of a rule costs the host, in Rust and in JavaScript, beside a native function; then the door and the chain with no rule and with one
	$(CARGO) run --profile $(PROFILE) --locked -p tillstream-rule-engine --example host_cost -- rules/examples/target/volume-discount.wasm
	$(CARGO) run --profile $(PROFILE) --locked -p tillstream-rule-engine --example host_cost -- rules/javascript/examples/volume-discount/target/volume-discount.js 20000
	$(CARGO) build --profile $(PROFILE) --locked -p tillstream-loadtest
	$(built)/tillstream-bench http --bin $(bin) --rule rules/examples/target/volume-discount.wasm

hostile-rules: ## MODULES hostile modules (default 10000), from SEED: the host's memory and every call's budget
	TILLSTREAM_HOSTILE=$(MODULES) TILLSTREAM_SEED=$(SEED) $(CARGO) test --workspace --locked --test hostile -- --nocapture --test-threads=1

clean: ## Removes build output (never data)
	$(CARGO) clean
