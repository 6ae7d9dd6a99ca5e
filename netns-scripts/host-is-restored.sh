#!/usr/bin/env bash
# Rules, routes, addresses, devices, nftables and sysctls of a host are after `baton stop` what they were before
# `baton run`; also when a killed baton left its own behind and the next one starts and stops.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file picture 20K
start_applications
NO_VIDEOS=yes write_cluster

# A host with a life of its own: rules, routes and tables of somebody else must still be there afterwards.
ip -n "$(namespace a)" rule add pref 50 fwmark 0x5a lookup 77
ip -n "$(namespace a)" route add 192.0.2.0/24 via "${address_of[b4]}" table 77
ip -n "$(namespace a)" -6 rule add pref 50 fwmark 0x5a lookup 77
ip -n "$(namespace a)" -6 route add 2001:db8::/32 via "${address_of[b6]}" table 77
ip -n "$(namespace a)" link add dummy0 type dummy 2>/dev/null || true
in_ns a nft -f - <<'END'
table inet somebody {
  set friends { type ipv4_addr; elements = { 192.0.2.1 } }
  chain enters { type filter hook prerouting priority -150; ip saddr @friends counter accept; }
}
END

# host_state NODE: everything baton might touch. Counters of packets are not state.
host_state() {
    echo "== devices"
    in_ns "$1" ip -details link | sed 's/ promiscuity.*//'
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
assert_as_before() {
    local node
    for node in "${nodes[@]}"; do
        host_state "$node" >"$run_dir/log/state-$node.now"
        diff -u "$run_dir/log/state-$node.before" "$run_dir/log/state-$node.now" || fail "the state of $node is not what it was"
        ok "the state of $node is what it was ($(wc -l <"$run_dir/log/state-$node.now") lines)"
    done
}

for node in "${nodes[@]}"; do host_state "$node" >"$run_dir/log/state-$node.before"; done

use() {
    mark
    fetch client a /images/picture
    assert_answered b
    fetch client a /elsewhere/picture
    assert_answered a
    assert_counts a.handed_off=1 b.accepted=1
}

say "start, use, stop"
start_cluster
use
must_fail "a answered the last one" assert_answered b
must_fail "one was handed off" assert_counts
must_fail "baton is running" assert_as_before
for node in "${nodes[@]}"; do stop_baton "$node"; done
assert_as_before

say "start, use, kill -9, start, use, stop"
start_cluster
use
for node in "${nodes[@]}"; do kill_baton "$node"; done
must_fail "a killed process tidies nothing" assert_as_before
start_cluster
use
for node in "${nodes[@]}"; do stop_baton "$node"; done
assert_as_before

say "start, SIGTERM"
start_cluster
use
for node in "${nodes[@]}"; do kill -TERM "$(baton_pid "$node")"; done
for node in "${nodes[@]}"; do wait_until 40 process_gone "$(baton_pid "$node")"; done
assert_as_before

say "start and stop without one packet in between"
start_baton a
stop_baton a
assert_as_before

scenario_end
