# Everything here needs Go, git and make. Other programs (etcd, the API server,
# kubectl, Helm, the linters) are built once from Go modules into the user's cache
# folder or $ISTHMUS_CACHE. Prometheus comes from the PATH or a Debian package.

.DEFAULT_GOAL := help
SHELL := /bin/sh

GO ?= go
FUZZTIME ?= 60s
# More flags for go test, such as -json or -run.
TESTFLAGS ?=
BENCHCOUNT ?= 5
CHART := charts/isthmus

# The race detector needs a C compiler; without one Go turns cgo off.
RACE ?= $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race)

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
DATE ?= $(shell git log -1 --format=%cI 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.date=$(DATE)

# A container's user may have no home; Go and the tools need one for their caches.
ifeq ($(HOME),)
export HOME := $(CURDIR)/bin/.home
endif

# How many packages are tested in parallel: many of them mostly wait.
PACKAGES ?= 4

MODULE := github.com/isthmus-mesh/isthmus

# The tests that need nothing but Go. Every other tier is one folder of test/; see
# test/README.md.
UNIT := ./cmd/... ./docs/... ./hack/... ./internal/... ./patches/... ./webhook/... ./test/framework/...

# A folder with a file .norace is tested without the race detector; the file says why.
NORACE = $(patsubst ./%/.norace,$(MODULE)/%,$(shell find . -name .norace))

# A folder with a file .alone is tested while no other package is; the file says why.
ALONE = $(patsubst ./%/.alone,$(MODULE)/%,$(shell find . -name .alone))
MESH = $(shell $(GO) list ./test/mesh/...)

# $(call go-test,FOLDERS) tests folders with the race detector, except those above. Go's
# cache of test results does not see the programs that tests build and run: hence -count=1.
go-test = $(call go-test-packages,$(or $(shell $(GO) list $(1)),$(error go list finds no package in $(1))))
go-test-packages = \
	$(if $(filter-out $(NORACE),$(1)),$(call go-test-run,$(RACE),$(filter-out $(NORACE),$(1)))) \
	$(if $(filter $(NORACE),$(1)),$(call go-test-run,,$(filter $(NORACE),$(1))))
go-test-run = $(GO) test $(1) -p $(PACKAGES) -count=1 $(TESTFLAGS) -timeout 15m $(2) || status=1;

# Packages of other tiers with tests that take a minute: build tag soak, names with
# NoReviewFails. They use unexported code of their packages, so they cannot move to test/soak.
LONG := ./webhook/serving ./test/integration/admission ./test/integration/servingcert

# The part of the slow tiers that CI runs; "make nightly" runs all of them.
CI_ROTATIONS ?= 2
CI_E2E ?= .
CI_CHAOS ?= ^(TestConcurrentFaults|TestControllerIsKilledWhilePublishing|TestWebhookIsDown)$$

# Prints the path of a tool, and builds the tool first if it is missing.
CLUSTER := $(GO) -C test/tools/cluster run .
TOOL = $$($(CLUSTER) bin $(1))

# The tests start a control plane, unless KUBECONFIG names a running one, and Istio's and
# cert-manager's programs beside it. Helm renders the chart.
CONTROL_PLANE := etcd kube-apiserver kubectl kube-controller-manager
TEST_TOOLS := $(if $(KUBECONFIG),kubectl,$(CONTROL_PLANE)) pilot-discovery pilot-agent cert-manager-controllers helm

# These are not built: they come from the PATH or from Debian's packages.
PACKAGED_TOOLS := prometheus promtool

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "; print "Usage: make <target>\n"} \
		/^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z0-9-]+:.*## / {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Build

.PHONY: build
build: ## Build bin/isthmus and bin/isthmus-publish, static, with their version
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/ ./cmd/isthmus ./cmd/isthmus-publish

.PHONY: clean
clean: ## Remove build results, except the cache of tools
	rm -rf bin/isthmus bin/isthmus-publish bin/demo bin/cover.out bin/bench.txt dist

##@ Test (test/README.md says what each tier proves, what it needs and how long it takes)

.PHONY: test
test: control-plane compile ## Run unit, integration and tools tests (the first time it builds a control plane)
	@status=0; $(call go-test,$(UNIT) ./test/integration/...) $(test-tools) exit $$status

.PHONY: test-unit
test-unit: ## Run the tests that need nothing but Go
	@status=0; $(call go-test,$(UNIT)) exit $$status

.PHONY: test-integration
test-integration: control-plane ## Run test/integration, beside an API server
	@status=0; $(call go-test,./test/integration/...) exit $$status

.PHONY: test-mesh
test-mesh: control-plane ## Run test/mesh, beside istiod, pilot-agent, cert-manager and Prometheus
	@status=0; \
	$(GO) test -p 2 -count=1 $(TESTFLAGS) -timeout 15m $(filter-out $(ALONE),$(MESH)) || status=1; \
	$(GO) test -p 1 -count=1 $(TESTFLAGS) -timeout 15m $(ALONE) || status=1; \
	exit $$status

# PAGE=weights runs one page.
.PHONY: test-guides
test-guides: stand-ins ## Run test/guides: the pages of docs/guides, block by block, in a small cluster
	$(GO) test -tags guides -count=1 $(TESTFLAGS) -v -timeout 20m $(if $(PAGE),-run 'TestPages/^$(PAGE)$$') ./test/guides

test-tools = for module in cluster standin images; do \
		$(GO) -C test/tools/$$module test $(TESTFLAGS) -timeout 5m $(if $(KUBECONFIG),$$([ $$module = cluster ] && echo ./internal/... || echo ./...),./...) || status=1; \
	done;

.PHONY: test-tools
test-tools: control-plane ## Run the tests of test/tools: building programs, starting control planes
	@status=0; $(test-tools) exit $$status

.PHONY: test-node
test-node: node-parts ## Run the tests of test/tools that start a cluster of one node (Linux, as root)
	$(GO) -C test/tools/cluster test -tags e2e -count=1 $(TESTFLAGS) -run Node -timeout 10m .

.PHONY: e2e
e2e: node-parts ## Run test/e2e/lifecycle: a release from installation to uninstallation on a node, under traffic
	$(GO) test -tags e2e -count=1 $(TESTFLAGS) -v -parallel 6 -timeout 30m ./test/e2e/lifecycle

.PHONY: chaos
chaos: node-parts ## Run test/e2e/chaos: one fault after another on a node, under traffic
	$(if $(KUBECONFIG),,@$(CLUSTER) images isthmus-clock >/dev/null)
	$(GO) test -tags chaos -count=1 $(TESTFLAGS) -v -timeout 40m ./test/e2e/chaos

bench-scale = $(GO) test -run '^$$' -bench '^BenchmarkController$$' -benchtime 1x -timeout 30m ./test/soak/scale

.PHONY: soak
soak: control-plane ## Run test/soak: rotations, faults and 5,000 namespaces on the real istiod, for minutes
	@status=0; \
	$(GO) test -tags soak -count=1 $(TESTFLAGS) -v -p 1 -parallel 8 -timeout 30m ./test/soak/... || status=1; \
	$(GO) test -tags soak -count=1 $(TESTFLAGS) -p 1 -timeout 20m -run NoReviewFails $(LONG) || status=1; \
	$(bench-scale) || status=1; \
	exit $$status

.PHONY: test-ci
test-ci: control-plane stand-ins node-parts ## Run what CI runs of test-mesh, test-guides, soak, e2e and chaos
	@status=0; \
	echo "=== mesh, guides, soak with $(CI_ROTATIONS) rotations"; \
	ISTHMUS_ROTATIONS=$(CI_ROTATIONS) $(GO) test -tags soak,guides -p 3 -parallel 8 -count=1 $(TESTFLAGS) -v -timeout 30m \
		$(filter-out $(ALONE),$(MESH)) ./test/guides ./test/soak/... || status=1; \
	$(GO) test -p 1 -count=1 $(TESTFLAGS) -v -timeout 15m $(ALONE) || status=1; \
	echo "=== e2e, on a node"; \
	$(GO) test -tags e2e -count=1 $(TESTFLAGS) -v -parallel 6 -timeout 30m -run '$(CI_E2E)' ./test/e2e/lifecycle || status=1; \
	echo "=== chaos, on a node"; \
	$(GO) test -tags chaos -count=1 $(TESTFLAGS) -v -timeout 40m -run '$(CI_CHAOS)' ./test/e2e/chaos || status=1; \
	exit $$status

# Every part runs, even if an earlier part failed.
.PHONY: nightly
nightly: ## Run everything: all tiers in full, the checks, the demo, fuzzing and measurements (hours)
	@$(MAKE) --no-print-directory --keep-going verify demo demo-down test test-mesh test-guides \
		test-node e2e chaos soak bench-memory bench-publish bench-latency bench-injector bench fuzz

.PHONY: stand-ins
stand-ins:
	@$(CLUSTER) build $(CONTROL_PLANE) pilot-discovery pilot-agent helm stand-in-node stand-in-edge stand-in-service stand-in-cni promtool >/dev/null

.PHONY: control-plane
control-plane: ## Build the tests' control plane, Istio's programs and Helm into the cache, with progress
	@$(CLUSTER) build $(TEST_TOOLS) >/dev/null
	@$(CLUSTER) build $(PACKAGED_TOOLS) >/dev/null || echo "tests that need the missing programs will fail, the others run"

# go test prints nothing while it compiles; this prints progress.
.PHONY: compile
compile:
	@$(GO) build $(RACE) -v ./... 2>&1 | awk '/^[^ \t#]+$$/ {if (++n % 50 == 0) print "compiled " n " packages, at " $$0; fflush(); next} {print}'

.PHONY: cover
cover: control-plane ## Run unit, integration and mesh tests and print the total coverage
	@mkdir -p bin
	$(GO) test -timeout 15m -coverpkg=./... -coverprofile=bin/cover.out ./...
	@$(GO) tool cover -func=bin/cover.out | tail -1

.PHONY: bench
bench: ## Measure the admission handler against the cost of decoding alone, and hostile reviews
	@mkdir -p bin
	@$(GO) test -run '^$$' -bench '^Benchmark(Handler|Floor)$$' -benchmem -count $(BENCHCOUNT) ./webhook > bin/bench.txt || { cat bin/bench.txt; exit 1; }
	@cat bin/bench.txt
	@awk '/^Benchmark/ { name = $$1; sub(/-[0-9]+$$/, "", name); if (!(name in best) || $$3 < best[name]) best[name] = $$3 } \
		END { print ""; \
			count = split("4KB 10KB", sizes, " "); \
			for (i = 1; i <= count; i++) { \
				handler = best["BenchmarkHandler/inject/" sizes[i]]; floor = best["BenchmarkFloor/" sizes[i]]; \
				if (!floor) { print "no result for " sizes[i]; failed = 1; continue } \
				printf "%-5s handler %.3f ms, decoding %.3f ms, ratio %.2f (bar 0.60)\n", sizes[i], handler / 1e6, floor / 1e6, handler / floor } \
			exit failed }' bin/bench.txt
	@echo; echo "The worst of the hostile reviews, as a multiple of an ordinary review of its size (bar 20 at 3MiB),"
	@echo "and the growth of the heap by different ones (bar 2 MiB and 8 MiB):"
	@$(GO) test -run '^$$' -bench '^BenchmarkHostile' -benchtime 1x -timeout 30m ./webhook

.PHONY: bench-latency
bench-latency: control-plane ## Measure what the webhook adds to the creation of a pod: 1, 10 and 50 clients
	$(GO) test -run '^$$' -bench '^BenchmarkCreate$$' -benchtime 1x ./test/integration/admission

.PHONY: bench-injector
bench-injector: control-plane ## Measure the same reviews in Istio's injector and in Isthmus' webhook
	$(GO) test -run '^$$' -bench '^BenchmarkReviewCost$$' -benchtime 1x ./test/mesh/injector

.PHONY: bench-memory
bench-memory: control-plane ## Measure the webhook's memory: 100 namespaces, idle and after 100,000 reviews
	$(GO) test -run '^$$' -bench '^BenchmarkMemory$$' -benchtime 1x ./test/integration/admission

.PHONY: bench-publish
bench-publish: control-plane ## Measure the publisher: from a rotated file to the Secret, and its memory
	$(GO) test -run '^$$' -bench '^BenchmarkRotation$$' -benchtime 1x ./test/integration/publish

.PHONY: bench-scale
bench-scale: control-plane ## Measure the controller with 500 and 5,000 edge namespaces: memory, requests, growth
	$(bench-scale)

.PHONY: simulate
simulate: control-plane ## Simulate a day with 50,000 Secrets, with the latencies of the real API server and istiod
	@mkdir -p bin
	ISTHMUS_MEASUREMENTS=$(CURDIR)/bin/model.json $(GO) test -run '^$$' -bench '^BenchmarkModel$$' -benchtime 1x ./test/mesh/istiocasource
	ISTHMUS_MEASUREMENTS=$(CURDIR)/bin/model.json ISTHMUS_SIMULATION=50000,20000,10 \
		$(GO) test -count=1 -run '^TestSimulation' -v -timeout 30m ./internal/controller

.PHONY: fuzz
fuzz: ## Run every fuzz test for FUZZTIME (60s)
	@for folder in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for name in $$($(GO) test -list '^Fuzz' $$folder | grep '^Fuzz'); do \
			echo "$$folder $$name"; \
			$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$folder || exit 1; \
		done; \
	done

##@ Node

# If KUBECONFIG is set, its nodes must have the images (docs/testing.md). Otherwise the
# node needs Linux and root.
NODE := etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy containerd containerd-shim-runc-v2 ctr

.PHONY: cluster-up
cluster-up: ## Start a cluster of one node that runs pods, and print its KUBECONFIG (Linux, as root)
	@mkdir -p bin
	@said=$$($(CLUSTER) up --node --detach --data $(CURDIR)/bin/cluster) && \
		echo "$$said" | sed -n 's/.*"kubeconfig":"\([^"]*\)".*/export KUBECONFIG=\1/p'

.PHONY: cluster-down
cluster-down: ## Stop that cluster and remove everything of it
	@$(CLUSTER) down --data $(CURDIR)/bin/cluster

.PHONY: node-parts
node-parts:
	@$(CLUSTER) build helm kubectl $(if $(KUBECONFIG),,$(NODE)) >/dev/null
	$(if $(KUBECONFIG),,@$(CLUSTER) images >/dev/null)

##@ Check

.PHONY: verify
verify: lint tidy generated chart-lint chart-test ## Run everything that CI checks besides the tests

# Modules of test/tools with our own code. Those of MAINS only start another project's
# program: their types are not checked, because that loads the types of all of Istio. All
# are checked with the flags of their build, so that their dependencies are compiled once.
MODULES := standin images
MAINS := cert-manager-controllers coredns istiocni
AS_BUILT := CGO_ENABLED=0 GOFLAGS=-trimpath

.PHONY: lint
lint: ## Run the linters, go vet's among them
	@linter=$(call TOOL,golangci-lint) && $$linter run --build-tags soak,guides,e2e,chaos ./... && \
		cd test/tools/cluster && $$linter run --build-tags e2e -c ../../../.golangci.yml ./... && \
		for module in $(MODULES); do (cd ../$$module && $(AS_BUILT) $$linter run -c ../../../.golangci.yml ./...) || exit 1; done && \
		for module in $(MAINS); do (cd ../$$module && $(AS_BUILT) $$linter run --fast-only -c ../../../.golangci.yml ./...) || exit 1; done

.PHONY: tidy
tidy: ## Check that go.mod files are tidy
	$(GO) mod tidy -diff
	$(GO) -C test/tools/cluster mod tidy -diff

.PHONY: fmt
fmt: ## Format the code
	@linter=$(call TOOL,golangci-lint) && $$linter fmt ./... && cd test/tools/cluster && $$linter fmt -c ../../../.golangci.yml ./...

.PHONY: generate
generate: ## Write generated files: the chart's README
	@docs=$(call TOOL,helm-docs) && $$docs --chart-search-root=$(CHART) --log-level=warning

.PHONY: generated
generated: ## Check that generated files are up to date
	@docs=$(call TOOL,helm-docs) && $$docs --chart-search-root=$(CHART) --log-level=warning --dry-run | \
		git diff --no-index --exit-code $(CHART)/README.md - || { echo "$(CHART)/README.md is out of date: run make generate"; exit 1; }

.PHONY: chart-lint
chart-lint: ## Lint the chart
	@helm=$(call TOOL,helm) && $$helm lint --strict $(CHART)

.PHONY: chart-test
chart-test: ## Run the chart's unit tests
	@unittest=$(call TOOL,helm-unittest) && $$unittest --strict $(CHART)

##@ Try

.PHONY: demo
demo: ## Start a control plane with istiod and Isthmus, and show what they do
	@hack/demo.sh up

.PHONY: demo-down
demo-down: ## Stop the demo
	@hack/demo.sh down
