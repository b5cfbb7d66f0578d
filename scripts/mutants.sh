#!/usr/bin/env bash
# Changes the modules that decide, one expression at a time, and looks whether a test notices (needs cargo-mutants).
# docs/reliability.md explains those that none notices.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo mutants --version >/dev/null 2>&1 || {
    echo "mutants: cargo-mutants is missing; remedy: cargo install --locked cargo-mutants" >&2
    exit 1
}
out=${1:-target/mutants}

# mutants PACKAGE NAME TIMEOUT FILES... -- TESTS...: goes on to the next group if some survive.
mutants() {
    local package=$1 name=$2 timeout=$3 files=()
    shift 3
    while [ "$1" != -- ]; do
        files+=(-f "$1")
        shift
    done
    mkdir -p "$out/$name"
    cargo mutants -p "$package" "${files[@]}" -o "$out/$name" --timeout "$timeout" --colors never "$@" || true
    echo "mutants: $name: $(wc -l <"$out/$name/mutants.out/missed.txt") survived"
}

mutants cdc-actors decisions 30 actors/src/{order,guard,retry,flight,view}.rs -- --lib --test model
mutants cdc-actors waiting 60 actors/src/{suspects,refused}.rs -- --lib --test refused --test pipeline
mutants daisi-cdc-consumer domain 60 src/domain/{subject,event_key,transform,error}.rs \
    src/adapters/redis/failure.rs src/adapters/memory.rs src/adapters/nats/{stall,lives,progress,kept}.rs -- --lib --test redis_store
mutants cdc-actors dedup 40 actors/src/dedup.rs -- --lib --test failures --test target_lost_data --test pipeline
mutants cdc-actors delivery 60 actors/src/{publish,ingest}{.rs,/*.rs} \
    -- --lib --test failures --test pipeline --test refused --test target_lost_data --test changes --test shutdown --test suspects
