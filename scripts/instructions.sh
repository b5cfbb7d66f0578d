#!/usr/bin/env bash
# Counts the instructions that a medium event costs from delivery to acknowledgement, through all actors on ports that answer at
# once, and fails when they are more than 10 % above the budget. With --set the count becomes the budget. Then what the transform of a
# declared row costs beside that of the typed one, which may be 10 % more at most, in whatever order the columns come.
#
# Time is no measure on a shared machine; instructions are the same on every run. The difference between two numbers of events
# leaves out what start and end cost.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly BUDGET_FILE=benches/common/instructions.budget FEW=5000 MANY=25000
# For the transform alone, multiples of the 500 different events that come again and again.
readonly FEW_ALONE=1000 MANY_ALONE=6000

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

# count EVENTS [CONFIGURATION ORDER]: instructions of a run over so many events.
count() {
    local told
    told=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "${CARGO_TARGET_DIR:-target}/instructions/instructions" "$@" 2>&1) \
        || { echo "$told" >&2; return 1; }
    awk '/Collected :/ { print $4 }' <<<"$told"
}

# each FEW MANY [CONFIGURATION ORDER]: instructions of one event, through everything or through the transform of a configuration alone.
each() {
    local few=$1 many=$2 least most
    shift 2
    least=$(count "$few" "$@")
    most=$(count "$many" "$@")
    echo $(((most - least) / (many - few)))
}

path=$(each $FEW $MANY)
if [ "${1-}" = --set ]; then
    echo "$path" >"$BUDGET_FILE"
fi
budget=$(<"$BUDGET_FILE")
echo "instructions: $path for a medium event, the budget is $budget"
if [ $((path * 10)) -gt $((budget * 11)) ]; then
    echo "instructions: $path are more than 10 % above the budget of $budget. If the reason is a good one: scripts/instructions.sh --set" >&2
    exit 1
fi

for order in same absent turns random; do
    typed=$(each $FEW_ALONE $MANY_ALONE config.yaml "$order")
    declared=$(each $FEW_ALONE $MANY_ALONE examples/tables/typed.yaml "$order")
    echo "instructions: columns $order: $typed for the transform alone of a typed row, $declared for the same row declared"
    if [ $((declared * 10)) -gt $((typed * 11)) ]; then
        echo "instructions: a declared row costs $declared, more than 10 % above the $typed of a typed one" >&2
        exit 1
    fi
done
