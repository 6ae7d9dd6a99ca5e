# shellcheck shell=bash
# The state of a host: everything baton might touch, so that "unchanged" can be checked.

# host_state NODE: Counters of packets are not state.
host_state() {
    echo "== devices"
    # A bridge's timers run.
    in_ns "$1" ip -details link | sed -e 's/ promiscuity.*//' -e '/^ *bridge/d'
    echo "== addresses"
    in_ns "$1" ip address
    local family
    for family in -4 -6; do
        echo "== rules $family"
        in_ns "$1" ip "$family" rule
        echo "== routes $family"
        in_ns "$1" ip "$family" route show table all
        echo "== tunnels and neighbours $family"
        in_ns "$1" ip "$family" neighbour show proxy
    done
    echo "== nftables"
    in_ns "$1" nft --stateless list ruleset
    echo "== sysctls"
    # One writes itself: the number of tracked connections.
    in_ns "$1" sysctl -a 2>/dev/null | grep '^net\.' | grep -v 'nf_conntrack_count'
    echo "== sockets that listen"
    in_ns "$1" ss -Hlntu | awk '{ print $1, $5 }' | sort
}

# remember_host NODE...: as it is before baton.
remember_host() {
    local node
    for node in "$@"; do host_state "$node" >"$run_dir/log/state-$node.before"; done
}

# assert_host_as_before NODE...
assert_host_as_before() {
    local node
    for node in "$@"; do
        host_state "$node" >"$run_dir/log/state-$node.now"
        diff -u "$run_dir/log/state-$node.before" "$run_dir/log/state-$node.now" || fail "the state of $node is not what it was"
        ok "the state of $node is what it was ($(wc -l <"$run_dir/log/state-$node.now") lines)"
    done
}

# elsewhere COMMAND...: becomes COMMAND, in a mount namespace of its own, where SETUP (a shell text) was run before. What is
# mounted there is nobody else's, and gone with it. /run/baton is one of this run's.
elsewhere() {
    # shellcheck disable=SC2016 # the shell in the namespace expands it
    exec unshare --mount --propagation private sh -ec 'mount --bind "$0" /run/baton; eval "${SETUP:-}"; exec "$@"' "$run_dir/run-baton" "$@"
}

# wait_for_tun NODE: a new device takes the kernel a moment until its state is what it will stay.
wait_for_tun() { wait_until 5 tun_is_up "$1"; }
tun_is_up() { in_ns "$1" ip link show bt0 | grep -q 'state UP'; }
