# Everything this project does, one target each. `make help` lists them.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
CONFIG ?= config.yaml
FAULTS ?=
BENCH ?=
RUNBOOK ?=
SOAK_SECONDS ?= 7200
# Debian keeps nats-server in /usr/sbin, which is not on everybody's PATH.
export PATH := $(PATH):/usr/sbin

.PHONY: help setup build lint test k8s rules image-test dist faults controls saboteur soak bench bench-e2e instructions resources mutants demo run clean

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Installs the servers and tools that tests and demo need, if they are missing
	@scripts/install-servers.sh

build: ## Builds the release binary: target/release/daisi-cdc-consumer
	$(CARGO) build --release --locked

lint: ## Checks formatting, lints, licences, duplicates and, with network, advisories
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-features --all-targets --locked -- -D warnings
	@scripts/deny.sh

test: ## Runs every test, on servers of their own, and the page in a headless Chromium
	@scripts/install-servers.sh page
	$(CARGO) test --workspace --all-features --locked
	@scripts/instructions.sh
	@scripts/rules.sh --check
	@scripts/check-k8s.sh

k8s: setup ## Renders k8s/ and checks it without a cluster; checks the alert rules
	$(CARGO) build --workspace --all-features --locked
	@scripts/rules.sh --check
	@scripts/check-k8s.sh

rules: ## Makes the PrometheusRule from k8s/components/alerts/rules.yaml; RUNBOOK=URL sets where its links lead
	@scripts/rules.sh $(RUNBOOK)

image-test: ## Builds the Dockerfile with buildah, on base images made here, and tries the image: minutes
	@scripts/test-image.sh

dist: ## Makes a release in target/dist: tarball, SBOM, checksums
	@scripts/dist.sh

faults: build saboteur ## Runs every fault scenario on both servers: FAULTS="--seed 7 nats-killed" chooses
	@scripts/install-servers.sh proof
	$(CARGO) run --release --locked -p cdc-proof -- run $(FAULTS)

controls: build saboteur ## Runs the service without a defence, again and again, which must fail where it holds with it
	@scripts/install-servers.sh proof
	$(CARGO) run --release --locked -p cdc-proof -- run --controls $(FAULTS)

saboteur:
	$(CARGO) build --release --locked -p cdc-saboteur

soak: setup build ## Runs random faults for SOAK_SECONDS (7200)
	$(CARGO) run --release --locked -p cdc-proof -- run everything-at-once everything-remembered --seconds $(SOAK_SECONDS) --jobs 2 $(FAULTS)

bench: ## Measures what an event costs inside the process, without servers: BENCH="path" chooses a group
	$(CARGO) bench --locked --bench micro -- $(BENCH)

bench-e2e: setup ## Measures the service against a loop that only passes on: BENCH="--rounds 3" chooses
	$(CARGO) bench --locked --bench e2e -- $(BENCH)

resources: setup ## Measures what requests and limits in k8s/ go by: three minutes, with nothing else running
	@scripts/resources.sh

instructions: ## Counts the instructions that an event costs, against the budget
	@scripts/instructions.sh

mutants: ## Looks which changes of the deciding modules no test notices: minutes to an hour
	@scripts/mutants.sh

demo: setup ## Runs the whole pipeline on this machine with generated traffic
	$(CARGO) run --release --locked -- demo

run: ## Runs the service with CONFIG (config.yaml)
	$(CARGO) run --release --locked -- run --config $(CONFIG)

clean: ## Removes what was built and the servers that setup put into .tools
	$(CARGO) clean
	rm -rf .tools
