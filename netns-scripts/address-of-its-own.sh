#!/usr/bin/env bash
# A service address of its own (10.99.0.1/32, as anycast and virtual addresses are), to which the back-end has no route:
# answers with that source leave the back-end all the same, although its kernel filters by reverse path. Also when the
# address comes with a reload.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file small 300K
start_applications
NO_VIDEOS=yes write_cluster

in_ns a ip link add own0 type bridge
in_ns a ip address add 10.99.0.1/32 dev own0
in_ns a ip address add fd99::1/128 dev own0
in_ns a ip link set own0 up
# Packets are captured from devices with a front-end's address, or with a default route.
in_ns a ip route add default via "${address_of[client4]}"
in_ns a ip -6 route add default via "${address_of[client6]}"
in_ns client ip route add 10.99.0.1 via "${address_of[a4]}"
in_ns client ip -6 route add fd99::1 via "${address_of[a6]}"
no_route_from_b() { ! in_ns b ip route get 10.99.0.1 >/dev/null 2>&1; }
# The kernel's own count of what it refused for its source.
refused_by_b() {
    in_ns b cat /proc/net/netstat | awk '
        $1 == "TcpExt:" && !seen++ { for (i = 2; i <= NF; i++) name[i] = $i; next }
        $1 == "TcpExt:" { for (i = 2; i <= NF; i++) if (name[i] == "IPReversePathFilter") print $i }'
}
ask_own_address() {
    local refused address
    refused=$(refused_by_b)
    mark
    for address in 10.99.0.1 '[fd99::1]'; do
        fetch client a /images/small --connect-to "::$address:80"
        assert_answered b
        assert_same_file "from $address" small
        fetch client a /elsewhere/small --connect-to "::$address:80"
        assert_answered a
    done
    assert_counts a.handed_off=2 b.accepted=2
    assert_eq "packets that b's reverse path filter has refused" "$refused" "$(refused_by_b)"
}

cp "$run_dir/cluster.yaml" "$run_dir/usual"
sed 's/^      a: \[.*/      a: ["10.99.0.1:80", "[fd99::1]:80"]/' "$run_dir/usual" >"$run_dir/own"

say "from the start"
no_route_from_b || fail "the stage is wrong: b has a route"
cp "$run_dir/own" "$run_dir/cluster.yaml"
start_cluster
ask_own_address
# What the checks are worth: without the route of last resort the kernel refuses every answer.
refused=$(refused_by_b)
in_ns b ip route delete 10.99.0.1/32 table default
FETCH_TIMEOUT=2 fetch client a /images/small --connect-to "::10.99.0.1:80"
assert_eq "curl, without that route (28: timed out)" 28 "$outcome"
must_fail "b's kernel has refused its answers" assert_eq "packets that b's reverse path filter has refused" "$refused" "$(refused_by_b)"
for node in a b; do timeout 60 "$BATON" stop --timeout 0s --socket "$run_dir/$node/baton.sock" >/dev/null; done
no_route_from_b || fail "b has a route that it did not have before"

say "by a reload"
cp "$run_dir/usual" "$run_dir/cluster.yaml"
start_cluster
cp "$run_dir/own" "$run_dir/cluster.yaml"
for node in b a; do baton_ask "$node" reload >/dev/null; done
ask_own_address

scenario_end
