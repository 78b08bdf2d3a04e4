# Everything a newcomer needs: `make run` and `make test`. The other targets are parts of these, or take longer.

CARGO ?= cargo

.PHONY: run test test-cxl test-page lint mutants fuzz build install uninstall bench simulate repeat clean help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

run: ## the main job, end to end, with its verdict: publish, order, ack, deliver and verify 1 GiB
	$(CARGO) build --release --package embarcadero --package loadgen
	tools/run_main_job.sh

test: lint ## everything in the suite
	$(CARGO) test --workspace --no-fail-fast

test-cxl: ## the binaries on two emulated hosts with one CXL device (QEMU; as root it installs what is missing); skipped: exit code 77
	tests/cxl/run.sh

test-page: ## the status page in a browser under load (Chromium; as root it installs what is missing); skipped: exit code 77
	tests/page/run.sh

lint: ## formatting and warnings, of the client library alone as well
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- --deny warnings
	$(CARGO) clippy --lib --no-default-features --quiet -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --lib --no-deps --quiet

mutants: ## deliberate faults in the protocol code: each must make a named test fail
	$(CARGO) run --quiet --package mutants

build: ## release binaries
	$(CARGO) build --release --workspace

# Installs what `make build` has built: it builds nothing itself, since it is often run as root. Packages set DESTDIR.
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
BINARIES = $(or $(CARGO_TARGET_DIR),target)/release
ETC = $(DESTDIR)$(SYSCONFDIR)/embarcadero
TO = $(DESTDIR)$(PREFIX)
PROGRAMS = embarlet embarctl loadgen
UNITS = embarcadero.service embarcadero@.service
COMPLETIONS = $(foreach program,$(PROGRAMS),bash-completion/completions/$(program) zsh/site-functions/_$(program) fish/vendor_completions.d/$(program).fish)

install: ## what `make build` built, to DESTDIR and PREFIX [/usr/local]: programs, configurations, units, manual pages, completions
	@for program in $(PROGRAMS) pages; do test -x $(BINARIES)/$$program || \
		{ echo "make install: there is no $(BINARIES)/$$program: run make build first" >&2; exit 1; }; done
	install -d $(TO)/bin $(TO)/share/embarcadero $(TO)/lib/systemd/system $(TO)/lib/sysusers.d
	install -m 755 $(PROGRAMS:%=$(BINARIES)/%) $(TO)/bin
	install -m 644 config/*.yaml config/OPERATING.md config/grafana/embarcadero.json config/prometheus/alerts.yaml $(TO)/share/embarcadero
	for unit in $(UNITS); do sed -e 's|/usr/local|$(PREFIX)|' -e 's|/etc/embarcadero/|$(SYSCONFDIR)/embarcadero/|' config/systemd/$$unit \
		>$(TO)/lib/systemd/system/$$unit && chmod 644 $(TO)/lib/systemd/system/$$unit || exit 1; done
	install -m 644 config/systemd/embarcadero.sysusers $(TO)/lib/sysusers.d/embarcadero.conf
	$(BINARIES)/pages $(BINARIES)/embarlet $(TO)/share
	$(BINARIES)/embarctl __pages $(TO)/share
	$(BINARIES)/loadgen __pages $(TO)/share
	test -e $(ETC) || { install -d $(ETC) && install -m 644 config/two-core.yaml $(ETC)/embarcadero.yaml; }

uninstall: ## takes away what `make install` installed, with the same DESTDIR and PREFIX; /etc/embarcadero stays
	rm -f $(PROGRAMS:%=$(TO)/bin/%) $(UNITS:%=$(TO)/lib/systemd/system/%) $(TO)/lib/sysusers.d/embarcadero.conf
	rm -f $(foreach program,$(PROGRAMS),$(TO)/share/man/man1/$(program).1 $(TO)/share/man/man1/$(program)-*.1) $(COMPLETIONS:%=$(TO)/share/%)
	rm -rf $(TO)/share/embarcadero

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
