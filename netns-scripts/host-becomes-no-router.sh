#!/usr/bin/env bash
# A host that is no router forwards nothing but baton's packets while baton runs, of neither family, and does not take
# itself for one: the default route that a router advertised to it stays, and is renewed, before, while and after. Also on
# a kernel that can switch IPv6 forwarding on for all devices only (before Linux 6.17), across kill -9.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/routed.sh
. "$scripts_dir/lib/routed.sh"

topology_up a b
make_file picture 100K
start_applications
NO_VIDEOS=yes write_cluster
add_router
old_kernel="$scripts_dir/tools/without_setting.sh force_forwarding bt0"

# What nobody should do: the client has routes to the far network through a.
ip -n "$(namespace client)" route add 10.78.0.0/24 via "${address_of[a4]}"
ip -n "$(namespace client)" -6 route add fd78::/64 via "${address_of[a6]}"
ip -n "$(namespace router)" route add default via "${address_of[client4]}" # so that answers do not pass a
ip -n "$(namespace router)" -6 route add default via "${address_of[client6]}"

# through_a: what comes of using a as a router, over IPv4 and over IPv6, and how many errors and redirects a sends meanwhile.
through_a() {
    local before answers
    before=$(wire errors a)
    answers=$(tool client ask_closed_port "${address_of[far4]}" "${address_of[far6]}")
    printf '%s, errors %s' "$answers" $(($(wire errors a) - before))
}
assert_forwards_nothing() { assert_eq "IPv4 and IPv6 through a" "silence silence, errors 0" "$(through_a)"; }

# settings NODE: all that concerns forwarding and advertisements, of every device but the TUN.
settings() { in_ns "$1" sysctl -a 2>/dev/null | grep -E '^net\.ipv[46]\.(conf\.|ip_forward )' | grep -v 'conf\.bt0\.'; }
assert_settings_are_before() {
    settings "$1" | diff "$run_dir/log/settings-$1.before" - >"$run_dir/log/settings-$1.diff" || fail "settings of $1: $(<"$run_dir/log/settings-$1.diff")"
    ok "all settings of $1 are what they were"
}
changed_settings() { settings "$1" | diff "$run_dir/log/settings-$1.before" - | sed -n 's/^> net\.//p' | tr -d ' ' | xargs || true; }
# assert_route_stays: without being renewed it would be gone after two seconds.
route=$(advertised_route a)
assert_route_stays() {
    sleep 2.2
    assert_eq "the advertised default route of a" "$route" "$(advertised_route a)"
}
use() {
    local family
    for family in 4 6; do
        mark
        fetch client "a$family" /images/picture
        assert_answered b
        assert_same_file "the answer over IPv$family" picture
        fetch far "a$family" /images/picture
        assert_answered b
        assert_counts a.handed_off=2 b.accepted=2
    done
}

say "the check of the route, fed with what the kernel does to it when all devices are made a router's without care"
in_ns b sh -c 'echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
must_fail "the kernel has deleted it" has_advertised_route b
in_ns b sh -c 'echo 0 >/proc/sys/net/ipv6/conf/all/forwarding'
wait_until 5 has_advertised_route b

for node in a b; do settings "$node" >"$run_dir/log/settings-$node.before"; done
say "before"
assert_forwards_nothing

for kernel in "" "$old_kernel"; do
    say "while baton runs${kernel:+, on a kernel without force_forwarding}"
    BATON_THROUGH=$kernel start_cluster
    use
    assert_forwards_nothing
    if [[ -z $kernel ]]; then
        assert_eq "settings changed" "ipv4.conf.eth0.forwarding=1 ipv6.conf.eth0.force_forwarding=1" "$(changed_settings a)"
    else
        assert_eq "settings changed" "ipv4.conf.eth0.forwarding=1 ipv6.conf.all.forwarding=1" "$(changed_settings a)"
    fi
    must_fail "baton is running" assert_settings_are_before a
    assert_route_stays

    say "after kill -9, and while it runs again"
    kill_baton a
    assert_forwards_nothing
    BATON_THROUGH=$kernel start_baton a
    wait_for_peers
    use
    assert_forwards_nothing

    say "after its stop"
    for node in a b; do stop_baton "$node"; done
    assert_forwards_nothing
    for node in a b; do assert_settings_are_before "$node"; done
done
assert_route_stays

say "a host that is a router stays one"
in_ns a sh -c 'echo 1 >/proc/sys/net/ipv4/conf/eth0/send_redirects; echo 1 >/proc/sys/net/ipv4/ip_forward
    echo 2 >/proc/sys/net/ipv6/conf/eth0/accept_ra; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
settings a >"$run_dir/log/settings-a.before"
must_fail "a forwards" assert_forwards_nothing
start_cluster
use
assert_eq "IPv4 and IPv6 through a" "refused refused" "$(through_a | cut -d , -f 1)"
for node in a b; do stop_baton "$node"; done
assert_settings_are_before a

scenario_end
