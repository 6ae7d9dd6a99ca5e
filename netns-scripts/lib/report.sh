# shellcheck shell=bash
# What a script tells: progress, failures, and everything somebody needs who was not there.

if [[ -t 1 ]]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' yellow=$'\e[33m' plain=$'\e[0m'
else
    # shellcheck disable=SC2034 # the demonstration uses them all
    bold='' dim='' red='' green='' yellow='' plain=''
fi

say() { printf '%s\n' "$*"; }
ok() { printf '  %sok%s    %s\n' "$green" "$plain" "$*"; }

fail() {
    printf '  %sFAIL%s  %s\n' "$red" "$plain" "$*" >&2
    local frame
    for ((frame = 1; frame < ${#FUNCNAME[@]}; frame++)); do
        printf '          in %s, %s:%s\n' "${FUNCNAME[frame]}" "$(basename "${BASH_SOURCE[frame]}")" "${BASH_LINENO[frame - 1]}" >&2
    done
    exit 1
}

on_error() { printf '  %sFAIL%s  status %s from: %s (%s:%s)\n' "$red" "$plain" "$1" "$2" "$3" "$4" >&2; }
trap 'on_error "$?" "$BASH_COMMAND" "$(basename "${BASH_SOURCE[0]}")" "$LINENO"' ERR

heading() { printf -- '---------- %s\n' "$*"; }

# dump_everything: before anything is taken down. Each question is bounded in time: a process may be stopped.
dump_everything() {
    local node question
    for node in "${nodes[@]}"; do
        [[ -e /run/netns/$(namespace "$node") ]] || continue
        for question in status peers flows stats; do
            [[ -S $run_dir/$node/baton.sock ]] || continue
            heading "$node: baton $question"
            timeout 2 "$BATON" "$question" --json --socket "$run_dir/$node/baton.sock" 2>&1 | head -c 6000 || true
            echo
        done
        heading "$node: rules, routes, addresses"
        in_ns "$node" ip rule
        in_ns "$node" ip route show table all | grep -v -e '^broadcast' -e '^ff00' || true
        in_ns "$node" ip -brief address
        heading "$node: nft"
        in_ns "$node" nft list ruleset 2>&1 | head -80
        heading "$node: TCP"
        in_ns "$node" ss -tan 2>&1 | head -40
        heading "$node: nginx's errors"
        tail -n 10 "$run_dir/log/nginx-$node.error.log" 2>&1
        if [[ -e $run_dir/log/baton-$node.log ]]; then
            heading "$node: baton's log"
            tail -n 60 "$run_dir/log/baton-$node.log"
        fi
    done
    heading "the switch's counters"
    wire summary 2>&1
}

# keep_logs STATUS: the big files go with the run, the logs stay where somebody can read them: always under
# $BATON_LOGS if that is set, and after a failure in a directory that is named.
keep_logs() {
    local kept=${BATON_LOGS:-}
    if [[ -z $kept ]]; then
        [[ $1 -ne 0 && $1 -lt 128 ]] || return 0
        kept=${run_dir}-logs
    fi
    mkdir -p "$kept"
    cp -r "$run_dir/log/." "$kept/"
    cp "$run_dir/cluster.yaml" "$kept/" 2>/dev/null
    if [[ $1 -ne 0 ]]; then
        find "$run_dir" -maxdepth 1 -name 'capture-*.pcap' -size -100M -exec cp {} "$kept/" \;
        echo "$scenario: failed; logs are in $kept" >&2
    fi
}
