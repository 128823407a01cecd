# Everything here needs Go, git and make. Whatever else is used (etcd, the API
# server, kubectl, Helm, the linters) is built from Go modules, once, into the
# user's cache folder or $ISTHMUS_CACHE; Prometheus is found, else fetched.

.DEFAULT_GOAL := help
SHELL := /bin/sh

GO ?= go
FUZZTIME ?= 60s
# More flags for go test, -json or -run for example.
TESTFLAGS ?=
BENCHCOUNT ?= 5
CHART := charts/isthmus

# The race detector needs a C compiler; without one Go turns cgo off.
RACE ?= $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race)

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
DATE ?= $(shell git log -1 --format=%cI 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.date=$(DATE)

# A container's user may have no home; Go and the tools want one for their caches.
ifeq ($(HOME),)
export HOME := $(CURDIR)/bin/.home
endif

# How many packages are tested at once: many of them wait more than they work.
PACKAGES ?= 4

# Where the race detector has nothing to see and costs the most: one goroutine,
# or programs that are processes of their own.
UNRACED := /internal/manifest /test/integration/chart /test/mesh/pilotagents /test/integration/discovery /test/integration/rbac /test/integration/restart

# What is tested beside Istio's, cert-manager's, Prometheus' and HAProxy's own programs, and
# the attacks of docs/security.md: minutes, so it has a target of its own.
BESIDE := /test/mesh/

# Prints the path of a tool, after building it where it is missing.
CLUSTER := $(GO) -C test/tools/cluster run .
TOOL = $$($(CLUSTER) bin $(1))

# The tests start the control plane, unless they are given a running one, beside
# it Istio's and cert-manager's own programs, and render the chart.
CONTROL_PLANE := etcd kube-apiserver kubectl kube-controller-manager
TEST_TOOLS := $(if $(KUBECONFIG),kubectl,$(CONTROL_PLANE)) pilot-discovery pilot-agent cert-manager-controllers helm

# These are not built: they are found on the PATH, else fetched as Debian's packages.
PACKAGED_TOOLS := prometheus promtool

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "; print "Usage: make <target>\n"} \
		/^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z0-9-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Build

.PHONY: build
build: ## Build bin/isthmus and bin/isthmus-publish, static, with their version
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/ ./cmd/isthmus ./cmd/isthmus-publish

.PHONY: clean
clean: ## Remove what was built here; the cache of tools stays
	rm -rf bin/isthmus bin/isthmus-publish bin/demo bin/cover.out bin/bench.txt dist

##@ Test

# Go's cache of test results does not see the programs that tests build and run:
# hence -count=1.
.PHONY: test
test: control-plane compile ## Run unit and integration tests (minutes the first time, it builds a control plane)
	@status=0; \
	$(GO) test $(RACE) -p $(PACKAGES) -count=1 $(TESTFLAGS) -timeout 15m $$($(GO) list ./... | grep -v $(addprefix -e ,$(UNRACED) $(BESIDE))) || status=1; \
	$(GO) test -p $(PACKAGES) -count=1 $(TESTFLAGS) -timeout 15m $$($(GO) list ./... | grep $(addprefix -e ,$(UNRACED)) | grep -v $(addprefix -e ,$(BESIDE))) || status=1; \
	exit $$status
	$(GO) -C test/tools/cluster test $(TESTFLAGS) -timeout 5m $(if $(KUBECONFIG),./internal/...,./...)
	$(GO) -C test/tools/standin test $(TESTFLAGS) ./...
	$(GO) -C test/tools/images test $(TESTFLAGS) ./...

.PHONY: test-beside
test-beside: control-plane ## Run the tests beside Istio, cert-manager and Prometheus (minutes)
	$(GO) test -p 2 -count=1 $(TESTFLAGS) -timeout 15m $$($(GO) list ./... | grep $(addprefix -e ,$(BESIDE)))

.PHONY: test-unit
test-unit: ## Run the tests that need no control plane
	$(GO) test $(RACE) $(TESTFLAGS) $$($(GO) list ./... | grep -v -e /test/integration -e /test/mesh)
	$(GO) -C test/tools/cluster test $(TESTFLAGS) ./internal/...
	$(GO) -C test/tools/standin test $(TESTFLAGS) ./...
	$(GO) -C test/tools/images test $(TESTFLAGS) ./...

.PHONY: soak
soak: control-plane ## Run the trials that take minutes: rotations, faults and scale, on the real istiod
	@status=0; \
	$(GO) test -tags soak -count=1 $(TESTFLAGS) -v -parallel 8 -timeout 30m ./test/soak/rotations || status=1; \
	$(GO) test -tags soak -count=1 $(TESTFLAGS) -p 1 -timeout 20m -run NoReviewFails ./webhook/serving ./test/integration/admission ./test/integration/servingcert || status=1; \
	exit $$status
	@$(MAKE) --no-print-directory bench-scale

# PAGE=weights runs one of them.
.PHONY: scenarios
scenarios: stand-ins ## Run the guides of docs/guides, block by block, in a small cluster of real parts
	$(GO) test -tags scenario -count=1 $(TESTFLAGS) -v -timeout 20m $(if $(PAGE),-run 'TestPages/^$(PAGE)$$') ./test/guides

.PHONY: stand-ins
stand-ins:
	@$(CLUSTER) build $(CONTROL_PLANE) pilot-discovery pilot-agent helm stand-in-node stand-in-edge stand-in-service stand-in-cni promtool >/dev/null

# They wait more than they work. Three rotations instead of the soak's ten.
.PHONY: trials
trials: control-plane stand-ins ## Run the guides, the soak's trials and test-beside at the same time, as CI does
	ISTHMUS_ROTATIONS=$${ISTHMUS_ROTATIONS:-3} $(GO) test -tags soak,scenario -p 3 -parallel 8 -count=1 $(TESTFLAGS) -v -timeout 30m \
		./test/guides ./test/soak/rotations $$($(GO) list ./... | grep $(addprefix -e ,$(BESIDE)))

.PHONY: control-plane
control-plane: ## Build the tests' control plane, Istio's programs and Helm into the cache, with progress
	@$(CLUSTER) build $(TEST_TOOLS) >/dev/null
	@$(CLUSTER) build $(PACKAGED_TOOLS) >/dev/null || echo "the tests that need it will fail, the others run"

# go test is silent while it compiles; this shows how far it is.
.PHONY: compile
compile:
	@$(GO) build $(RACE) -v ./... 2>&1 | awk '/^[^ \t#]+$$/ {if (++n % 50 == 0) print "compiled " n " packages, at " $$0; fflush(); next} {print}'

.PHONY: cover
cover: control-plane ## Run all tests and print the coverage of each package and the total
	@mkdir -p bin
	$(GO) test -timeout 15m -coverpkg=./... -coverprofile=bin/cover.out ./...
	@$(GO) tool cover -func=bin/cover.out | tail -1

.PHONY: bench
bench: ## Measure the admission handler against the cost of decoding alone
	@mkdir -p bin
	@$(GO) test -run '^$$' -bench '^Benchmark(Handler|Floor)$$' -benchmem -count $(BENCHCOUNT) ./webhook > bin/bench.txt || { cat bin/bench.txt; exit 1; }
	@cat bin/bench.txt
	@awk '/^Benchmark/ { name = $$1; sub(/-[0-9]+$$/, "", name); if (!(name in best) || $$3 < best[name]) best[name] = $$3 } \
		END { print ""; \
			count = split("4KB 10KB", sizes, " "); \
			for (i = 1; i <= count; i++) { \
				handler = best["BenchmarkHandler/inject/" sizes[i]]; floor = best["BenchmarkFloor/" sizes[i]]; \
				if (!floor) { print "no result for " sizes[i]; failed = 1; continue } \
				printf "%-5s handler %.3f ms, decoding %.3f ms, ratio %.2f (bar 1.50)\n", sizes[i], handler / 1e6, floor / 1e6, handler / floor } \
			exit failed }' bin/bench.txt

.PHONY: bench-memory
bench-memory: control-plane ## Measure the webhook's memory: 100 namespaces, idle and after 100,000 reviews
	$(GO) test -run '^$$' -bench '^BenchmarkMemory$$' -benchtime 1x ./test/integration/admission

.PHONY: bench-publish
bench-publish: control-plane ## Measure the publisher: from a rotated file to the Secret, and its memory
	$(GO) test -run '^$$' -bench '^BenchmarkRotation$$' -benchtime 1x ./test/integration/publish

.PHONY: bench-scale
bench-scale: control-plane ## Measure the controller with 500 and 5,000 edge namespaces: memory, requests, growth
	$(GO) test -run '^$$' -bench '^BenchmarkController$$' -benchtime 1x -timeout 30m ./test/soak/scale

.PHONY: fuzz
fuzz: ## Run every fuzz test for FUZZTIME (60s)
	@for folder in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for name in $$($(GO) test -list '^Fuzz' $$folder | grep '^Fuzz'); do \
			echo "$$folder $$name"; \
			$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$folder || exit 1; \
		done; \
	done

##@ Node

# A cluster of one node, or that of KUBECONFIG, which has to hold the images: see
# docs/testing.md. Linux, as root.
NODE := etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy containerd containerd-shim-runc-v2 ctr

.PHONY: cluster-up
cluster-up: ## Start a cluster of one node that runs pods, and print its KUBECONFIG (Linux, as root)
	@mkdir -p bin
	@said=$$($(CLUSTER) up --node --detach --data $(CURDIR)/bin/cluster) && \
		echo "$$said" | sed -n 's/.*"kubeconfig":"\([^"]*\)".*/export KUBECONFIG=\1/p'

.PHONY: cluster-down
cluster-down: ## End that cluster; nothing of it is left
	@$(CLUSTER) down --data $(CURDIR)/bin/cluster

.PHONY: node-parts
node-parts:
	@$(CLUSTER) build helm kubectl $(if $(KUBECONFIG),,$(NODE)) >/dev/null
	$(if $(KUBECONFIG),,@$(CLUSTER) images >/dev/null)

.PHONY: e2e
e2e: node-parts ## Run the end-to-end tests on a node, with requests through edges from the installation to the end
	$(if $(KUBECONFIG),,$(GO) -C test/tools/cluster test -tags e2e -count=1 $(TESTFLAGS) -run Node -timeout 10m .)
	$(GO) test -tags e2e -count=1 $(TESTFLAGS) -v -parallel 6 -timeout 30m ./test/e2e/lifecycle

.PHONY: chaos
chaos: node-parts ## Break one thing after the other on a node, under traffic; ends with a table
	$(if $(KUBECONFIG),,@$(CLUSTER) images isthmus-clock >/dev/null)
	$(GO) test -tags chaos -count=1 $(TESTFLAGS) -v -timeout 40m ./test/e2e/chaos

##@ Check

.PHONY: verify
verify: lint tidy generated chart-lint chart-test ## Run everything that CI checks besides the tests

# Other modules of the repository with code of ours, and such as only start somebody
# else's program: of these no types are read, which would be those of all of Istio.
# They are checked as they are built, so that what they need is compiled once.
MODULES := standin images
MAINS := cert-manager-controllers coredns istiocni
AS_BUILT := CGO_ENABLED=0 GOFLAGS=-trimpath

.PHONY: lint
lint: ## Run the linters, go vet's among them
	@linter=$(call TOOL,golangci-lint) && $$linter run --build-tags soak,scenario,e2e,chaos ./... && \
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
demo: ## Bring up a control plane with istiod and Isthmus in it, and show what they do
	@hack/demo.sh up

.PHONY: demo-down
demo-down: ## End the demo
	@hack/demo.sh down
