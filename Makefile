# Everything this project does, one target each. `make help` lists them.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
CONFIG ?= config.yaml
# Debian keeps nats-server in /usr/sbin, which is not on everybody's PATH.
export PATH := $(PATH):/usr/sbin

.PHONY: help setup build lint test demo run clean

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Installs redis-server and nats-server for tests and demo, if they are missing
	@scripts/install-servers.sh

build: ## Builds the release binary: target/release/daisi-cdc-consumer
	$(CARGO) build --release --locked

lint: ## Checks formatting, lints and, where cargo-deny is installed, licences and advisories
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-features --all-targets --locked -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
		$(CARGO) deny --all-features check; \
	else \
		echo "cargo-deny is not installed: licences and advisories not checked (cargo install --locked cargo-deny)"; \
	fi

test: setup ## Runs every test, on servers of their own
	$(CARGO) test --workspace --all-features --locked

demo: setup ## Runs the whole pipeline on this machine with generated traffic
	$(CARGO) run --release --locked -- demo

run: ## Runs the service with CONFIG (config.yaml)
	$(CARGO) run --release --locked -- run --config $(CONFIG)

clean: ## Removes what was built and the servers that setup put into .tools
	$(CARGO) clean
	rm -rf .tools
