#!/usr/bin/env bash
# No test: what each end of a handed-off connection asks of its kernel, by strace, and where the process spends its time, by
# perf where it is there. Connections of one request each, all for another server than the one they come to.
#
#   netns-scripts/measure-handoff.sh [CONNECTIONS [CONCURRENCY]]      2000, 8
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/install.sh
. "$scripts_dir/lib/install.sh"
install_missing strace:strace
connections=${1:-2000} concurrency=${2:-8}

topology_up a b
make_file small 1K
start_nginx a
start_nginx b
export BATON_RUST_LOG=baton=info
NO_VIDEOS=yes start_cluster

connect() {
    tool client load close "${address_of[a]}" --connections "$1" --concurrency "$concurrency" \
        --body "$run_dir/www/small" --expect /images/small=b
}

# calls_of NODE: name and number for each connection, the most frequent first.
calls_of() {
    awk -v connections="$connections" '$4 ~ /^[0-9]+$/ && $NF != "total" { printf "    %-14s %6.2f\n", $NF, $4 / connections }' \
        "$run_dir/strace-$1" | sort -k 2 -rn
}

connect 200 >/dev/null
tracers=()
for node in a b; do
    strace -c -f -o "$run_dir/strace-$node" -p "$(baton_pid "$node")" 2>"$run_dir/log/strace-$node.log" &
    tracers+=($!)
done
for node in a b; do wait_until 5 grep -q attached "$run_dir/log/strace-$node.log"; done
mark
connect "$connections" >/dev/null
assert_counts a.handed_off="$connections" b.accepted="$connections"
for tracer in "${tracers[@]}"; do
    kill -INT "$tracer"
    wait "$tracer" || true
done
say "calls for each connection, front-end"
calls_of a
say "calls for each connection, back-end"
calls_of b

if command -v perf >/dev/null; then
    for node in a b; do
        perf record -q -g -o "$run_dir/perf-$node" -p "$(baton_pid "$node")" -- sleep 8 2>/dev/null &
    done
    mark
    connect $((5 * connections)) | tail -2
    wait
    for node in a b; do
        say "where $node spends its time"
        perf report -i "$run_dir/perf-$node" --no-children -g none --percent-limit 1 --stdio 2>/dev/null |
            grep -v '^#' | grep -v '^$' | head -25
    done
fi
scenario_end
