#!/usr/bin/env bash
# A client behind a router whose next link takes smaller packets than either end believes: what the router says about a
# packet of a handed-off connection arrives at the front-end and reaches the server that sent it. The servers know the
# router as the default route; over IPv6 by its link-local address, which it advertises.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/routed.sh
. "$scripts_dir/lib/routed.sh"
# shellcheck source=netns-scripts/lib/install.sh
. "$scripts_dir/lib/install.sh"

install_missing ethtool:ethtool
topology_up a b
make_file picture 2M
start_applications
NO_VIDEOS=yes write_cluster
add_router
# Every segment of the client is a packet of its own, and the router gets it as it is.
in_ns far ethtool -K eth0 tx off tso off gso off >/dev/null
start_cluster

router_errors() { wire errors router; }
errors=0
# exchange MTU: a download and an upload handed off, and a local download.
exchange() {
    mark
    errors=$(router_errors)
    fetch far a /images/picture
    assert_answered b
    assert_same_file "the handed-off answer" picture
    errors=$(($(router_errors) - errors))
    fetch far a /images/upload -X POST -T "$run_dir/www/picture" -H 'Expect:'
    assert_answered b
    assert_eq "hash of what arrived" "$(sha256sum <"$run_dir/www/picture" | cut -c 1-64)" "$(head -c 64 "$body")"
    fetch far a /elsewhere/picture
    assert_answered a
    assert_same_file "the local answer" picture
    assert_counts a.handed_off=2 b.accepted=2
}
# learned NODE: the path MTU that its kernel remembers for the client, for what it sends from aliases.
declare -A alias_of=([4]=198.18.0.1 [6]=fd00:ba70::1)
learned() { in_ns "$1" ip route get "${address_of[far]}" from "${alias_of[$FAMILY]}" | grep -o 'mtu [0-9]*' || true; }

say "every link takes 1500 octets"
exchange
assert_eq "errors from the router" 0 "$errors"
must_fail "the router had no reason" assert_at_least "errors from the router" 1 "$errors"

for mtu in 1400 1300; do
    say "the link to the client takes $mtu"
    narrow far "$mtu"
    exchange
    assert_at_least "errors from the router about the handed-off answer" 1 "$errors"
    assert_eq "what b's kernel has learned" "mtu $mtu" "$(learned b)"
done
must_fail "it has learned 1300" assert_eq "what b's kernel has learned" "mtu 1400" "$(learned b)"
must_fail "a answered" assert_answered b

scenario_end
