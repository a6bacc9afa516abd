# The gateway's commands. `make help` lists them.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO          ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
VERSION     ?= $(shell [ -e .git ] && git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS     := -X main.version=$(VERSION)
PACKAGES    := configs/debian-packages.txt

# What the gateway is started with by `make run`, such as ARGS="-listen 127.0.0.1:9000".
ARGS ?=

# Folders of test/ with a target of their own: slow, or measurements.
ALONE := bench-avsync|bench-fanout|bench-join|bench-latency|bench-network|bench-reload|bench-signaling|bench-viewers|bench-worker|camera|docker|soak
UNIT   = $(shell $(GO) list ./... | grep -v '^gateway/test/')
E2E    = $(shell $(GO) list ./test/... | grep -vE '^gateway/test/($(ALONE))(/|$$)')

# One line a test, every skip with its reason. TESTLOG: see test/report.
TESTLOG ?=
REPORT   = $(GO) run ./test/report $(if $(TESTLOG),-log $(TESTLOG))

SUDO = $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# $(call need,USES) installs those Debian packages of the uses that are missing.
# When nothing is missing it is quick and needs neither network nor root.
define need
@command -v dpkg-query >/dev/null || { echo "not a Debian system: install what $(PACKAGES) lists for: $(1)"; exit 0; }; \
wanted=$$(awk -v uses=" $(1) " 'index(uses, " " $$1 " ") { print $$2, $$3 }' $(PACKAGES) | while read -r package command _; do \
	case $$command in ''|'#'*) ;; *) if command -v $$command >/dev/null; then continue; fi ;; esac; echo $$package; done); \
installed=$$(dpkg-query -W -f '$${Package} $${db:Status-Status}\n' $$wanted 2>/dev/null | awk '$$2 == "installed" { print $$1 }' || true); \
missing=$$(comm -23 <(printf '%s\n' $$wanted | sort -u) <(printf '%s\n' $$installed | sort -u) | xargs); \
[ -n "$$missing" ] || exit 0; \
echo "installing $$missing"; \
log=$$(mktemp); \
$(SUDO) apt-get update -qq >$$log 2>&1 || echo "apt-get update: $$(tail -n 1 $$log)" >&2; \
$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing >$$log 2>&1 </dev/null || \
	{ cat $$log >&2; echo "apt-get install did not work: see above" >&2; exit 1; }; \
case " $$missing " in *" coturn "*) $(SUDO) systemctl disable --now coturn >/dev/null 2>&1 || true ;; esac; rm -f $$log
endef

##@ To use it

run: build ## install what is missing, build, serve http://localhost:8080
	$(call need,run)
	@exec bin/gateway -config configs/gateway.yaml -pipelines pipelines/ $(ARGS)

build: ## build bin/gateway
	$(call need,build)
	@[ -e bin/gateway ] || echo "building bin/gateway: the first time takes two minutes, the GStreamer bindings are C"
	@$(GO) build -buildvcs=false -ldflags "$(LDFLAGS)" -o bin/gateway ./cmd/gateway

##@ To work on it

test: test-unit test-e2e ## install what the tests need and run all but the camera's and the soak

test-unit: packages
	@$(GO) test -json $(UNIT) | $(REPORT)

test-e2e: packages build test/node_modules ## the whole product with real pipelines and browsers
	@GATEWAY_BINARY=$(CURDIR)/bin/gateway $(GO) test -json -count=1 -p 1 -timeout 15m $(E2E) | $(REPORT)

test-again: build ## one test as CI runs it; PACKAGE=gateway/test/e2e TEST=TestName
	@GATEWAY_BINARY=$(CURDIR)/bin/gateway $(GO) test -json -count=1 -timeout 15m $(if $(filter gateway/test/%,$(PACKAGE)),,-race) -run '^$(TEST)$$' $(PACKAGE) | $(REPORT)

check: packages ## gofmt, vet, staticcheck, go mod tidy, import rules, tests with -race
	@unformatted=$$(gofmt -l client cmd internal test); [ -z "$$unformatted" ] || { echo "gofmt -w $$unformatted"; exit 1; }
	@$(GO) mod tidy -diff
	@$(GO) vet ./...
	@$(GO) run $(STATICCHECK) ./...
	@$(GO) test -json -race $(UNIT) | $(REPORT)

test-camera: packages build ## a real V4L2 device, in a virtual machine
	$(call need,camera)
	@apt-cache show linux-image-amd64 >/dev/null 2>&1 || $(SUDO) apt-get update -qq # the kernel is downloaded, not installed
	@GATEWAY_BINARY=$(CURDIR)/bin/gateway $(GO) test -json -count=1 -timeout 15m ./test/camera/... | $(REPORT)

test-docker: ## the Dockerfile's steps in a clean Debian, without an engine (root)
	$(call need,chroot)
	@$(GO) test -v -count=1 -timeout 30m ./test/docker/

test-loss: packages build ## of test-e2e: how much of what is lost on the way is repaired, with the shares
	@GATEWAY_BINARY=$(CURDIR)/bin/gateway $(GO) test -v -count=1 -timeout 15m ./test/loss/

test-faults: packages build ## of test-e2e: what a viewer sees of each fault, with the times; STORM=10m, FAULTS=SIGSTOP for some
	@GATEWAY_BINARY=$(CURDIR)/bin/gateway $(GO) test -v -count=1 -timeout 60m ./test/faults/ -storm $(or $(STORM),10m) -faults '$(FAULTS)' $(ARGS)

test-hostile: packages build ## of test-e2e: attacks, and what ten good viewers notice; FOR=8s for each, ATTACKS=DTLS for some (root)
	@GATEWAY_BINARY=$(CURDIR)/bin/gateway $(GO) test -v -count=1 -timeout 60m ./test/hostile/ -for $(or $(FOR),8s) -attacks '$(ATTACKS)' $(ARGS)

soak: packages build ## joins, leaves and restarts, then everything back at the baseline
	@GATEWAY_BINARY=$(CURDIR)/bin/gateway $(GO) test -v -count=1 -timeout 60m ./test/soak/...

bench-latency: packages ## glass to glass: from an X screen to the pixels in a browser
	@$(GO) run ./test/bench-latency $(ARGS)

bench-join: packages ## from opening the page to the first picture
	@$(GO) run ./test/bench-join $(ARGS)

bench-reload: packages ## what viewers miss when a pipeline file is edited; KIND=device for one kind alone
	@$(GO) run ./test/bench-reload $(if $(KIND),-kinds $(KIND)) $(ARGS)

bench-avsync: packages ## how far sound and picture are apart in a browser; MINUTES=10 for longer than 3
	@$(GO) run ./test/bench-avsync $(if $(MINUTES),-for $(MINUTES)m) $(ARGS)

bench-fanout: packages ## what a packet costs each viewer: pion, the gateway, and the floor
	@$(GO) run ./test/bench-fanout $(ARGS)

bench-network: packages build ## bad networks: the gateway and two baselines; CASES=steps,low for some (root)
	@GATEWAY_BINARY=$(CURDIR)/bin/gateway $(GO) run ./test/bench-network $(if $(CASES),-cases $(CASES)) $(ARGS)

bench-signaling: packages build ## a thousand sockets that come and go: how long a join takes, CPU, memory
	@GATEWAY_BINARY=$(CURDIR)/bin/gateway $(GO) run ./test/bench-signaling $(ARGS)

bench-viewers: packages build ## hundreds of viewers of the whole gateway: loss, CPU, memory
	@GATEWAY_BINARY=$(CURDIR)/bin/gateway $(GO) run ./test/bench-viewers $(ARGS)

bench-worker: packages ## what a pipeline in a process of its own costs: delay, CPU
	@$(GO) run ./test/bench-worker $(ARGS)

##@ Other

packages: ## install the Debian packages to run, build and test
	$(call need,run build test)

test/node_modules: test/package.json test/package-lock.json
	$(call need,test)
	@cd test && npm ci --silent --no-audit --no-fund && touch node_modules

elements: ## which Debian package has which GStreamer elements, for the linter, from the package lists
	@internal/lint/elements.sh >internal/lint/elements.txt

clean: ## remove what was built
	@rm -rf bin test/node_modules

help: ## this list
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: run build test test-unit test-e2e test-again check test-camera test-docker test-faults test-hostile test-loss soak bench-latency bench-join bench-reload bench-avsync bench-fanout bench-network bench-signaling bench-viewers bench-worker packages elements clean help
