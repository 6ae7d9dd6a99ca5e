#!/usr/bin/env bash
# Rules, routes, addresses, devices, nftables and sysctls of a host are after `baton stop` what they were before
# `baton run`; also when a killed baton left its own behind and the next one starts and stops.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/host.sh
. "$scripts_dir/lib/host.sh"

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

remember_host "${nodes[@]}"

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
must_fail "baton is running" assert_host_as_before "${nodes[@]}"
for node in "${nodes[@]}"; do stop_baton "$node"; done
assert_host_as_before "${nodes[@]}"

say "start, use, kill -9, start, use, stop"
start_cluster
use
for node in "${nodes[@]}"; do kill_baton "$node"; done
must_fail "a killed process tidies nothing" assert_host_as_before "${nodes[@]}"
start_cluster
use
for node in "${nodes[@]}"; do stop_baton "$node"; done
assert_host_as_before "${nodes[@]}"

say "start, SIGTERM"
start_cluster
use
for node in "${nodes[@]}"; do kill -TERM "$(baton_pid "$node")"; done
for node in "${nodes[@]}"; do wait_until 40 process_gone "$(baton_pid "$node")"; done
assert_host_as_before "${nodes[@]}"

say "start and stop without one packet in between"
start_baton a
stop_baton a
assert_host_as_before "${nodes[@]}"

scenario_end
