# The commands of the project. `make` alone lists them.
#
# Everything is built by cargo; this file only knows which parts belong together, and in which order.

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
# What `run` builds with; `make run PROFILE=release` takes longer to build and less to run.
PROFILE ?= dev
# How long `soak` takes.
MINUTES ?= 30
# How long `fuzz` feeds each of its targets.
SECONDS ?= 60
WASM := wasm32-unknown-unknown
# What filters on the Proxy-Wasm SDK are built for: most hosts know WASI, and the SDK's own examples ask for it.
WASI := wasm32-wasip1
PROXY_WASM := $(shell grep -l '^proxy-wasm' tests/filters/*/Cargo.toml)
packages = $(shell awk -F'"' '/^name = "tidegate-/ { print $$2 }' $(1))
# Built one by one: together, each would get the features of libraries that any of them asks for, and other bytes than by itself.
FILTERS := $(call packages,$(filter-out $(PROXY_WASM),$(shell grep -l cdylib plugins/*/Cargo.toml tests/filters/*/Cargo.toml)))

.PHONY: help setup tools build filters test demo run bench instructions bench-beside bench-languages soak fuzz languages envoy docker docker-up format

help: ## List the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

setup: ## Install what the other commands need: the WebAssembly targets, curl, valgrind
	@for target in $(WASM) $(WASI); do \
		rustup target list --installed 2>/dev/null | grep -qx $$target || { echo "installing the target $$target"; rustup target add $$target; }; \
	done
	@command -v curl >/dev/null || { echo "installing curl"; apt-get install -y -q curl; }
	@command -v valgrind >/dev/null || { echo "installing valgrind"; apt-get install -y -q valgrind; } || echo "without it no instructions are counted"

tools: ## Install cargo-nextest and cargo-deny, which `make test` uses where they are installed
	$(CARGO) install --locked cargo-nextest cargo-deny

languages: ## Install what builds filters in JavaScript and Python, in target/languages, for their tests
	@sh tests/languages

envoy: ## Install the Envoy that tests compare with, in target/envoy
	@sh tests/envoy

build: ## Build the gateway, the sample API and the demonstration
	$(CARGO) build --workspace --bins

filters: setup ## Build the filters to WebAssembly, in target/wasm32-unknown-unknown/filter and target/wasm32-wasip1/filter
	@for filter in $(FILTERS); do $(CARGO) build --profile filter --target $(WASM) -p $$filter || exit; done
	@for filter in $(call packages,$(PROXY_WASM)); do $(CARGO) build --profile filter --target $(WASI) -p $$filter || exit; done

# No `build` before it: the tests' own build makes the programs too, and a build without the tests' dependencies would compile
# a good part of the same crates a second time, with other features.
test: filters ## Check the format, lints and dependencies, and run every test
	CARGO="$(CARGO)" sh tests/run

demo: filters build ## Register an external API and send a pod's traffic through the gate
	@$(TARGET)/debug/demo

run: setup ## Start the gateway on ./data and stay
	$(CARGO) run --profile $(PROFILE) -p tidegate-gateway --bin tidegate -- serve --data-dir data

bench-beside: filters envoy ## Measure the gateway beside nginx, HAProxy and Envoy; `make bench-beside CASES="plain tls"` only so (docs/performance.md)
	$(CARGO) build --release -p tidegate-gateway --bin tidegate
	tests/bench/beside.py $(CASES) --json $(TARGET)/beside.json --svg $(TARGET)/beside.svg

soak: filters ## Keep the gateway at 70 % of what it can do for a while; `make soak MINUTES=30`
	$(CARGO) build --release -p tidegate-gateway --bin tidegate
	tests/bench/soak.py --minutes $(MINUTES) --json $(TARGET)/soak.json

# With the versions of the gateway's own dependencies.
gateway/fuzz/Cargo.lock: Cargo.lock
	cp $< $@

fuzz: gateway/fuzz/Cargo.lock ## Feed what filters call with bytes that look for a way to harm the host; `make fuzz SECONDS=600`
	@command -v cargo-fuzz >/dev/null || { echo "installing cargo-fuzz"; $(CARGO) install --locked cargo-fuzz; }
	@for fuzzed in host_functions core_abi; do \
		$(CARGO) fuzz run --sanitizer none --fuzz-dir gateway/fuzz $$fuzzed -- \
			-max_total_time=$(SECONDS) -max_len=4096 -len_control=0 -rss_limit_mb=4096 || exit; \
	done

bench-languages: filters languages ## Measure what filters in Rust, JavaScript and Python cost
	$(CARGO) build --release -p tidegate-gateway --bin tidegate
	tests/bench/languages.py

bench: bench-beside ## Measure everything: beside the other proxies, decisions, filters (docs/performance.md)
	$(CARGO) bench -p tidegate-policy -p tidegate-gateway --bench decide --bench filters

instructions: filters ## Count the instructions of the request path; `make instructions WRITE=--write` writes the baseline anew
	$(CARGO) bench --profile counted -p tidegate-gateway --bench instructions -- $(WRITE)

format: ## Format the source
	$(CARGO) fmt --all

docker: ## Build the image; `make docker RUST_IMAGE=… BASE_IMAGE=…` builds from other base images
	docker build -f deploy/Dockerfile -t tidegate $(if $(RUST_IMAGE),--build-arg RUST_IMAGE=$(RUST_IMAGE)) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) .

docker-up: ## Start gateway, sample API and pod in containers
	docker compose up --build
