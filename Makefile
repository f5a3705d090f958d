# The commands of this repository. `make help` lists them.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Targets run one after the other. Each uses all cores.
.NOTPARALLEL:

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION) -X main.revision=$(REVISION)

# Every module of the repository: the product, and what is kept out of its module graph.
MODULES := $(patsubst %/go.mod,%,$(wildcard go.mod test/go.mod test/program/go.mod test/deploy/go.mod bench/go.mod tools/mixin/go.mod tools/release/go.mod))
MODULES := $(patsubst go.mod,.,$(MODULES))
# Each of these is a main of three lines around a program of others. The compiler checks it; vet and staticcheck
# would read all of Kubernetes.
SERVERS := test/kube/apiserver test/kube/controllers test/kube/etcd
# What vet and staticcheck read of a module. The Vault of the tests is 300 lines around 1,600 packages, which both would read
# too: it has a check of its own.
PACKAGES := $$(go list ./... | grep -v '^rotatord/test/vaultd$$')
# test/go.mod is not among those that are tidied: it pins a pair of Vault modules that
# `go mod tidy` would pull apart.
TIDY_MODULES := $(filter-out test,$(MODULES)) $(SERVERS) tools

STATICCHECK := $(CURDIR)/.tools/bin/staticcheck
GOVULNCHECK := $(CURDIR)/.tools/bin/govulncheck
BENCHSTAT   := .tools/bin/benchstat

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/rotatord, a static binary
	CGO_ENABLED=0 go build -trimpath -ldflags "$(LDFLAGS)" -o bin/rotatord ./cmd/rotatord

# Installation. It builds nothing, so that `sudo make install` needs no Go: run `make build` first.
# DESTDIR is put before every path, for packages. With another PREFIX the unit names that binary.
# A directory that exists keeps its mode.
PREFIX  ?= /usr/local
DESTDIR ?=
BINARY  ?= bin/rotatord
BINDIR  ?= $(PREFIX)/bin
UNITDIR ?= /etc/systemd/system
SHARE   ?= $(PREFIX)/share
COMPLETIONS := bash:bash-completion/completions/rotatord zsh:zsh/site-functions/_rotatord fish:fish/vendor_completions.d/rotatord.fish

.PHONY: install
install: ## install binary, unit, completions and the directories of the configuration; PREFIX=/usr/local, DESTDIR=
	@[[ -x $(BINARY) ]] || { echo "make install: $(BINARY) does not exist: run make build first" >&2; exit 1; }
	@umask 022; for d in $(BINDIR) $(UNITDIR) /etc/rotatord; do [[ -d $(DESTDIR)$$d ]] || (set -x; install -d -m 0755 $(DESTDIR)$$d); done
	@[[ -d $(DESTDIR)/etc/rotatord/credentials ]] || (set -x; install -d -m 0700 $(DESTDIR)/etc/rotatord/credentials)
	install -m 0755 $(BINARY) $(DESTDIR)$(BINDIR)/rotatord
	sed 's|/usr/local/bin/rotatord|$(BINDIR)/rotatord|' deploy/systemd/rotatord.service | install -m 0644 /dev/stdin $(DESTDIR)$(UNITDIR)/rotatord.service
	@umask 022; for c in $(COMPLETIONS); do \
		d="$(DESTDIR)$(SHARE)/$$(dirname "$${c#*:}")"; [[ -d $$d ]] || install -d -m 0755 "$$d"; \
		$(BINARY) completion "$${c%%:*}" | install -m 0644 /dev/stdin "$(DESTDIR)$(SHARE)/$${c#*:}"; \
	done
	@echo "installed. The credentials belong in /etc/rotatord/credentials, the configuration is /etc/rotatord/config.yaml."

.PHONY: uninstall
uninstall: ## remove what install has installed; keeps /etc/rotatord and the state directory
	rm -f $(DESTDIR)$(BINDIR)/rotatord $(DESTDIR)$(UNITDIR)/rotatord.service
	@for c in $(COMPLETIONS); do rm -f "$(DESTDIR)$(SHARE)/$${c#*:}"; done
	@echo "removed. /etc/rotatord and /var/lib/rotatord are left: see deploy/systemd/README.md before you remove them."

.PHONY: generate
generate: ## write all generated files again
	go generate ./...

# -count=1: what is tested is outside of the module, and the cache of test results does not see it.
E2E := cd test && go test -count=1 -timeout 25m ./... rotatord/test/program/...
# Recipes run these by this variable, and not by $(MAKE): `make --dry-run` runs each line that names make.
SIMULATED := \
	go test -run 'FlippedBits|DamagedHeaders|ISC|ArrivalsWithin|SteadyNeighbour|RandomTraffic|EstimatesNeverStop' ./internal/statedir ./internal/scheduler ./internal/admission && \
	go test -run 'TestMachine|TestReplaceMachine|TestRestoreMachine|TestSharedMachine|TestSharedHooks|HooksInARandomWorld|NoConsumerIsStranded|OwedReissueKeeps|ForThirtyDays' ./internal/rotation -shared.seeds 1000

# All but the race detector compiles as `make build` does, and builds the program first: a package is compiled once, and not
# for each way to call go. Two go commands that need the same package at the same time both compile it.
FLAGS := $(shell go env GOFLAGS 2>/dev/null)
COMPILED_ONCE := check-generated check-vaultd check-vet check-static check-fix check-vuln test test-simulated e2e
$(COMPILED_ONCE): export CGO_ENABLED := 0
$(COMPILED_ONCE): export GOFLAGS := $(strip $(FLAGS) -trimpath)
RACE := CGO_ENABLED=1 GOFLAGS='$(FLAGS)' go test -race

# The servers that tests run, as test/program builds them. A test finds them up to date: it has no minutes for that.
BUILD := mkdir -p .tools/test; build() { \
	echo "building $$1"; (cd $$2 && exec flock $(CURDIR)/.tools/test/$$1.lock env CGO_ENABLED=0 go build -trimpath "$${@:3}" -o $(CURDIR)/.tools/test/$$1 .); }
BUILD_SERVERS := $(BUILD); \
	build vaultd test/vaultd && build etcd test/kube/etcd '-ldflags=-s -w' && build kube-apiserver test/kube/apiserver '-ldflags=-s -w'
.PHONY: servers
servers: ## build the real Vault, etcd and Kubernetes API server of the tests; the first time takes minutes
	@$(BUILD_SERVERS)

.PHONY: test-short
test-short: ## the product's tests that take milliseconds
	go test -short ./...

.PHONY: test
test: tools ## all tests: the product with the race detector, deploy/, and against a real Vault
	@$(BUILD); build rotatord cmd/rotatord
	@# Where nothing is cached, the servers take minutes of the processor. The product's tests wait a lot, and come first.
	@(renice -n 15 $$BASHPID >/dev/null; $(BUILD_SERVERS)) & servers=$$!; failed=; \
	(set -x; $(RACE) -timeout 20m ./...) || failed=yes; \
	wait $$servers || failed=yes; \
	[[ -z $$failed ]]
	@# What the race detector cannot see: how much is allocated, and what takes too long under it.
	go test -run 'DecodedOnce|BurstIsDone|StatesAreCheap|UnderTheLimit|RequestsForEachRotation|NoGarbage|ScrapeAllocates|ScrapeTakes|TestLives|StreamIsWhat|WatchIsCheap|TestLinear|TestBlocks|ProcessIsHardened|EndlessAnswers|SchemaAgrees|StreamIsSmall|DeadIsForgotten|IdleReplica|NoticesArrive|TestBadFiles' ./internal/cloudflare ./internal/app ./internal/packed ./internal/httpapi ./internal/config ./internal/status ./internal/replica ./internal/ledger/transfer ./cmd/rotatord
	go test -run 'TestDisasters|TestSettings|TestFiles' ./internal/drill
	go test -tags failpoint -run 'Parse|Process' ./internal/failpoint
	cd tools/mixin && go test -count=1 ./...
	cd bench && go test -count=1 ./...
	@# Tests against a real Vault mostly wait. Those of deploy/, and those that wait for nothing, run beside them, with a lower priority.
	@(cd test/deploy && exec nice -n 10 go test -count=1 -timeout 25m ./...) & deploy=$$!; \
	(renice -n 15 $$BASHPID >/dev/null; set -x; $(SIMULATED)) & simulated=$$!; failed=; \
	($(E2E)) || failed=yes; \
	wait $$simulated || failed=yes; \
	wait $$deploy || failed=yes; \
	[[ -z $$failed ]]

.PHONY: test-simulated
test-simulated: ## the long tests of the product that are in simulated time, or that only read and write
	$(SIMULATED)

.PHONY: e2e
e2e: ## the real binary against a real Vault; the first build of it takes minutes
	$(E2E)

.PHONY: night-drill
night-drill: ## the person who is paged, with nothing but page, status and runbook: 20 faults in 13 minutes; UPDATE=1 writes the table of docs/night-drill.md
	cd test/night && go test -count=1 -timeout 40m -v -run 'TestNight$$' . -args -all $(if $(UPDATE),-update)

ROUNDS ?= 24
CRASH := cd test && CRASH_ROUNDS=$(ROUNDS) CRASH_SEED=$(SEED) CRASH_ROUND=$(ROUND) CRASH_EXTENDED=$(EXTENDED)
.PHONY: crash
crash: ## the kill matrix: ROUNDS=890 is all of it and some; SEED=S ROUND=K plays one round again; EXTENDED=1 only the ends of extended graces
	$(CRASH) go test -count=1 -timeout 60m -v -run 'TestCrash$$' ./crash

.PHONY: crash-proof
crash-proof: ## the test of that test: the same ROUNDS without the seal, and with other sabotage, must find violations
	$(CRASH) CRASH_SEAL=off go test -count=1 -timeout 60m -v -run 'TestCrash$$|TestOracle$$' ./crash

.PHONY: leader
leader: ## the leader of three real Vaults is struck at every step of a delivery: ROUNDS=200; SEED=S ROUND=K plays one round again
	cd test/leader && go test -count=1 -timeout 120m -v -run 'TestLeader$$' . \
		-args -rounds $(if $(filter command line,$(origin ROUNDS)),$(ROUNDS),200) -seed $(or $(SEED),1) -round $(or $(ROUND),-1)

MINUTES ?= 10
.PHONY: replicas
replicas: ## three replicas on three real Vaults, all killed, suspended and separated for MINUTES=10, and an oracle; then with its checks of holds left out; SEED=S TOKENS=N
	cd test/replicas && go test -count=1 -timeout 120m -v -run 'TestReplicas$$|TestSabotage$$' . \
		-args -minutes $(MINUTES) -seed $(or $(SEED),1) -tokens $(or $(TOKENS),0) $(if $(PERIOD),-period $(PERIOD)) $(if $(GRACE),-grace $(GRACE)) $(if $(LOGS),-logs $(abspath $(LOGS)))

.PHONY: replicas-figures
replicas-figures: ## how soon a dead replica's tokens are served, requests to Vault, throughput and memory with 1, 3, 10 replicas, 10,000 tokens; 35 minutes; FIGURE=TestCost for one
	cd test/replicas && go test -count=1 -timeout 120m -v -run '$(or $(FIGURE),TestTakeoverTime$$|TestCost$$|TestIdle$$|TestTenThousand$$)' . -args -figures

AWAY ?= 1m
.PHONY: auth
auth: ## each way to log in, against a real Vault and a real Kubernetes API server that are away for AWAY=1m; prints how soon rotations resume
	cd test/auth && go test -count=1 -timeout 30m -v . -args -away $(AWAY)

.PHONY: restarts
restarts: ## a restart hook and the real Deployment controller; the first build of Kubernetes' controllers takes minutes
	cd test && go test -count=1 -timeout 30m -v -run 'TestRealRollout$$' ./realkube -args -controllers

.PHONY: conformance
conformance: ## the suite for sinks on doubles, files, and the real Vault and Kubernetes; prints one table, fails where they differ
	@results=$$(mktemp); trap 'rm -f "$$results"' EXIT; \
	go test -count=1 -json -run 'TestVaultSink$$|TestKubernetesSink$$|TestFileConformance$$' ./internal/sink >"$$results" || true; \
	(cd test && go test -count=1 -json -run 'TestVaultSink$$|TestSink$$' ./realvault ./realkube) >>"$$results" || true; \
	cd test/program && go run ./conformance <"$$results"

.PHONY: fleet
fleet: ## 50 clients while secrets rotate and things go wrong, and a script in its place; 13 minutes, prints a table
	cd test/fleet && go test -count=1 -timeout 40m -args -full

RUNS ?= 5
.PHONY: outages
outages: ## what Vault holds while the daemon and Vault are killed in turn; RUNS of two minutes, prints a table; SEED=S
	cd test/fleet && go test -count=1 -timeout 60m -run 'TestOutages$$' -args -full -outages-runs $(RUNS) -outages-seed $(or $(SEED),1)

WITHIN ?= 80m
.PHONY: alerts
alerts: tools ## how long each failure takes to raise an alert, with a real Prometheus; needs root; WITHIN=80m; BINARY and RULES of another version
	cd test/alerts && go test -count=1 -timeout 2h -v -run 'TestAlerts$$' . -args -full -within $(WITHIN) \
		$(if $(BINARY),-binary $(abspath $(BINARY))) $(if $(RULES),-rules $(abspath $(RULES)))

.PHONY: alerts-e2e
alerts-e2e: tools ## a daemon fails in every way that has an alert, with a real Prometheus and Alertmanager; prints a table, seven minutes; ONLY=PLACE,PLACE PER_TOKEN=essential PAGE=docs/alerts.md keeps the table there
	cd test/alerts && go test -count=1 -timeout 30m -parallel 64 -v -run 'TestEveryAlert$$' . -args -every -within 16m $(if $(PAGE),-page $(abspath $(PAGE))) $(if $(PER_TOKEN),-per-token $(PER_TOKEN)) $(if $(ONLY),-only $(ONLY)) $(if $(OUT),-out $(abspath $(OUT)))

.PHONY: bench
bench: ## what a fleet costs and how fast it rotates, beside a loop, a script and other schedulers; 10 minutes; FULL=1 with 100,000 tokens, an hour; UPDATE=1 writes the tables of docs/
	cd bench && go run ./fleet $(if $(FULL),-full) $(if $(UPDATE),-update) $(if $(ONLY),-only $(ONLY))
	cd bench && go test -count=1 -timeout 20m -v -run 'TestSchedulers$$' . -args -table $(if $(FULL),-full) $(if $(UPDATE),-update)
	go test -count=1 -v -run 'TestUnderTheLimit$$|TestRequestsForEachRotation$$' ./internal/app
	cd bench && go test -run '^$$' -bench . -benchmem .

.PHONY: bench-compare
bench-compare: ## micro-benchmarks of the commit BASE beside those of the working tree, by benchstat; BENCH=regexp DIRS="bench internal/audit" COUNT=6 TIME=300ms
	@BENCH='$(BENCH)' COUNT='$(COUNT)' TIME='$(TIME)' scripts/bench-compare.sh '$(BASE)' $(DIRS)

.PHONY: tools
tools: ## install the programs that tests call (promtool, prometheus, systemd-analyze, mkfs.ext4, rpm, mandoc, chromium)
	scripts/install-tools.sh

.PHONY: image-e2e
image-e2e: ## the release's image in podman: rotations, health, stop, volume, other users, without root, arm64 in an emulator; needs root; installs podman
	scripts/install-tools.sh image
	cd test && ROTATORD_IMAGE=required go test -count=1 -v -timeout 15m -run 'TestImage$$' ./guide

.PHONY: tpm
tpm: ## the unit with its key in a software TPM by age-plugin-tpm, and the TPM away while a secret waits; needs root; installs swtpm and the plugin
	scripts/install-tools.sh tpm
	cd test && ROTATORD_TPM=required go test -count=1 -v -timeout 15m -run 'TestTPM$$' ./guide

.PHONY: check
check: check-quick check-code ## all checks that run no tests
	@echo "make check: all good"

# check-quick takes seconds and compares the files of the tree; check-code takes minutes of the processor
# and changes nothing, so it may run beside the tests (.ci/run).
.PHONY: check-quick check-code
check-quick: check-fmt check-generated
check-code: check-vet check-static check-fix check-tidy check-vuln

# Each check says on its first line what it does, and on failure what to do about it.

.PHONY: check-fmt
check-fmt: ## gofmt
	@echo "check-fmt: gofmt -l"
	@files=$$(find . -name '*.go' -not -path './.git/*' -not -path './.tools/*' -print0 | xargs -0 gofmt -l); \
	if [[ -n $$files ]]; then echo "not formatted; run gofmt -w on:" >&2; echo "$$files" >&2; exit 1; fi

.PHONY: check-vet
check-vet: ## go vet in every module
	@for m in $(MODULES); do \
		echo "check-vet: go vet in $$m"; \
		(cd $$m && pkgs=$(PACKAGES) && go vet $$pkgs) || { echo "go vet failed in $$m" >&2; exit 1; }; \
	done
	go vet -tags man ./cmd/rotatord
	go vet -tags failpoint ./internal/failpoint

.PHONY: check-static
check-static: $(STATICCHECK) ## staticcheck in every module
	@for m in $(MODULES); do \
		echo "check-static: staticcheck in $$m"; \
		(cd $$m && pkgs=$(PACKAGES) && $(STATICCHECK) $$pkgs) || { echo "staticcheck failed in $$m" >&2; exit 1; }; \
	done

.PHONY: check-vaultd
check-vaultd: $(STATICCHECK) ## go vet and staticcheck of the Vault of the tests, after a change of it: they read all of Vault, for minutes
	cd test && go vet ./vaultd && $(STATICCHECK) ./vaultd

# Built by this toolchain, because they can only read code of Go versions up to its own.
$(STATICCHECK): tools/go.mod tools/go.sum
	cd tools && go build -o $@ honnef.co/go/tools/cmd/staticcheck

$(GOVULNCHECK): tools/go.mod tools/go.sum
	cd tools && go build -o $@ golang.org/x/vuln/cmd/govulncheck

$(BENCHSTAT): tools/go.mod tools/go.sum
	cd tools && go build -o $(CURDIR)/$@ golang.org/x/perf/cmd/benchstat

.PHONY: check-fix
check-fix: ## go fix has nothing to modernise
	@echo "check-fix: go fix -diff"
	@go fix -diff ./... || { echo "run go fix ./..." >&2; exit 1; }

.PHONY: check-tidy
check-tidy: ## go mod tidy has nothing to change
	@for m in $(TIDY_MODULES); do \
		echo "check-tidy: go mod tidy -diff in $$m"; \
		(cd $$m && go mod tidy -diff) || { echo "run go mod tidy in $$m" >&2; exit 1; }; \
	done

.PHONY: check-generated
check-generated: ## generated files are up to date
	@echo "check-generated: go generate ./..."
	@scripts/check-generated.sh

.PHONY: check-vuln
check-vuln: $(GOVULNCHECK) ## known vulnerabilities; says so if their database cannot be reached
	@echo "check-vuln: govulncheck"
	@scripts/check-vuln.sh $(GOVULNCHECK)

.PHONY: release
release: ## build a release of the tag VERSION into dist/: archives, deb, rpm, image, chart, SBOMs, licences, checksums, all twice (docs/release.md)
	scripts/release.sh $(VERSION)

.PHONY: packages
packages: build ## make a deb and an rpm of bin/rotatord in dist/; VERSION=v0.0.1 ARCH=amd64
	SOURCE_DATE_EPOCH=$(shell git log -1 --format=%ct) scripts/package.sh $(if $(filter v%,$(VERSION)),$(VERSION),v0.0.0-$(VERSION)) $(or $(ARCH),$(shell go env GOARCH)) bin/rotatord dist

.PHONY: clean
clean: ## remove what was built and installed here
	rm -rf bin dist .tools
