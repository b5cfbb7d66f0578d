#!/usr/bin/env bash
# Measures what requests and limits in k8s/ go by: CPU and memory of the service at a steady rate, at saturation,
# with the records in its own memory, and with large events. On servers of its own; three minutes, and nothing else should run meanwhile.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# measure WORDS ARGUMENTS...: the lines of the bench that tell of the service.
measure() {
    printf '\n%s\n  cargo bench --bench e2e -- %s\n' "$1" "${*:2}"
    cargo bench --quiet --locked --bench e2e -- "${@:2}" | grep -E '^(Service|[0-9]+ events/s|idle)' | sed 's/^/  /'
}

measure 'steady 5 000 events/s of 1 KB' steady --rate 5000 --seconds 10
measure 'steady 20 000 events/s of 1 KB' steady --rate 20000 --seconds 10
measure 'saturation, events of 1 KB' --alone --rounds 1
measure 'saturation, records in the memory of the service' --alone --rounds 1 --set dedup.store=memory
measure 'a backlog of events of 200 KB' --alone --rounds 1 --events 2000 --payload 200000
measure 'a backlog of events of 900 KB' --alone --rounds 1 --events 600 --payload 900000
