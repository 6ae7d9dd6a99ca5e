#!/usr/bin/env bash
# IPv4 and IPv6 side by side, in every mixture: clients of one family while servers talk to each other over the other one,
# front-ends of one family only, and a host that switches IPv6 off for new devices.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file picture 1M
start_applications
# What an administrator may have done; the TUN is a new device.
in_ns a sh -c 'echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6'

# through FAMILY: a download and an upload that b answers, and a download that a answers.
through() {
    fetch client "a$1" /images/picture
    assert_answered b
    assert_same_file "the answer over IPv$1" picture
    fetch client "a$1" /images/upload -X POST -T "$run_dir/www/picture" -H 'Expect:'
    assert_answered b
    assert_eq "hash of what arrived" "$(sha256sum <"$run_dir/www/picture" | cut -c 1-64)" "$(head -c 64 "$body")"
    fetch client "a$1" /elsewhere/picture
    assert_answered a
}
# overlay_octets FAMILY: of the uploads, and all else that a says to b.
overlay_octets() { wire traffic a "${address_of[b$1]}" udp; }

for control in 4 6; do
    for frontends in '4 6' 4 6; do
        say "front-ends of IPv ${frontends/ / and }, control channel and overlay over IPv$control"
        rm -f "$run_dir/cluster.yaml"
        CONTROL_FAMILY=$control FRONTENDS=$frontends NO_VIDEOS=yes start_cluster
        for family in 4 6; do
            mark
            before=$(overlay_octets $control)
            if [[ $frontends == *$family* ]]; then
                through $family
                assert_counts a.handed_off=2 b.accepted=2
                assert_at_least "octets of UDP over IPv$control from a to b" $((before + 1048576)) "$(overlay_octets $control)"
                continue
            fi
            fetch client "a$family" /images/picture
            assert_answered a
            assert_counts
            must_fail "a looks at none of it" through $family
        done
        assert_eq "octets of UDP over the other family" 0 "$(overlay_octets $((10 - control)))"
        must_fail "there are some" assert_eq "octets of UDP over the other family" 0 "$(overlay_octets $control)"
        for node in a b; do stop_baton "$node"; done
        in_ns switch nft flush set bridge wire ip_traffic
        in_ns switch nft flush set bridge wire ip6_traffic
    done
done
assert_eq "resets from any server" 0 "$(wire resets '*')"

scenario_end
