# Everything a newcomer needs: `make run` and `make test`. The other targets are parts of these, or take longer.

CARGO ?= cargo

.PHONY: run test test-cxl lint mutants fuzz build bench simulate repeat clean help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

run: ## the main job, end to end, with its verdict: publish, order, ack, deliver and verify 1 GiB
	$(CARGO) build --release --package embarcadero --package loadgen
	tools/run_main_job.sh

test: lint ## everything in the suite
	$(CARGO) test --workspace --no-fail-fast

test-cxl: ## the binaries on two emulated hosts with one CXL device (QEMU; as root it installs what is missing); skipped: exit code 77
	tests/cxl/run.sh

lint: ## formatting and warnings, of the client library alone as well
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- --deny warnings
	$(CARGO) clippy --lib --no-default-features --quiet -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --lib --no-deps --quiet

mutants: ## deliberate faults in the protocol code: each must make a named test fail
	$(CARGO) run --quiet --package mutants

build: ## release binaries
	$(CARGO) build --release --workspace

bench: ## throughput and latency as ratios of what the machine can do
	perf/compare.sh

SEEDS ?= 10000

simulate: ## simulated clusters on incoherent memory: SEEDS=n of them, or SEED=x with its story; a failure is shrunk
	$(CARGO) run --profile checked --quiet --package simulate -- $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --threads 2)

RUNS ?= 20

repeat: ## the suite RUNS=n times, every other time beside a busy core: which tests fail now and then
	RUNS=$(RUNS) tests/repeat.sh

SECONDS_EACH ?= 60

fuzz: ## feed everything that parses with anything, SECONDS_EACH=n for each target
	BOLERO_RANDOM_TEST_TIME_MS=$$(($(SECONDS_EACH) * 1000)) $(CARGO) test --test fuzz -- --test-threads 2

clean: ## remove what was built and logged
	$(CARGO) clean
	rm -rf run
