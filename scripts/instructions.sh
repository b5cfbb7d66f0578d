#!/usr/bin/env bash
# Counts the instructions that a medium event costs from delivery to acknowledgement, through all actors on ports that answer at
# once, and fails when they are more than 10 % above the budget. With --set the count becomes the budget.
#
# Time is no measure on a shared machine; instructions are the same on every run. The difference between two numbers of events
# leaves out what start and end cost.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly BUDGET_FILE=benches/common/instructions.budget FEW=5000 MANY=25000

if ! command -v valgrind >/dev/null; then
    echo "instructions: skipped, there is no valgrind (on Debian: apt-get install valgrind)"
    exit 0
fi
# valgrind translates for the machine that the budget was counted on.
if [ "$(uname -m)" != x86_64 ]; then
    echo "instructions: skipped, the budget is for x86_64"
    exit 0
fi
${CARGO:-cargo} build --quiet --profile instructions --locked -p cdc-bench --bin instructions

# count EVENTS: instructions of a run over so many events.
count() {
    local told
    told=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "${CARGO_TARGET_DIR:-target}/instructions/instructions" "$1" 2>&1) \
        || { echo "$told" >&2; return 1; }
    awk '/Collected :/ { print $4 }' <<<"$told"
}

few=$(count "$FEW")
many=$(count "$MANY")
each=$(((many - few) / (MANY - FEW)))
if [ "${1-}" = --set ]; then
    echo "$each" >"$BUDGET_FILE"
fi
budget=$(<"$BUDGET_FILE")
echo "instructions: $each for a medium event, the budget is $budget"
if [ $((each * 10)) -gt $((budget * 11)) ]; then
    echo "instructions: $each are more than 10 % above the budget of $budget. If the reason is a good one: scripts/instructions.sh --set" >&2
    exit 1
fi
