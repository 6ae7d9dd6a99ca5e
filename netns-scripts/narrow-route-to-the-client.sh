#!/usr/bin/env bash
# The way from a server to a client takes smaller packets than either end believes. The server that sends learns it, also
# when that is the server itself which says so, about a connection it serves from an alias: for a peer or for itself.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file picture 2M
start_nginx a
start_nginx b
NO_VIDEOS=yes start_cluster

# download SERVER SILENCE PATH [COUNT...]: through a, which parks the connection if the client is silent for long.
download() {
    mark
    answers=$(tool client load silent "${address_of[a]}" --connections 1 --silence "$2" --body "$run_dir/www/picture" \
        --expect "$3=$1") || fail "errors: $answers"
    ok "whole, from $1"
    assert_counts "${@:4}"
}

for server in a b; do
    say "1300 octets from $server to the client"
    ip -n "$(namespace "$server")" route add "$client_address" dev eth0 mtu lock 1300
    for silence in 0 3; do
        download a "$silence" /elsewhere/picture
        download b "$silence" /images/picture a.handed_off=1 b.accepted=1
    done
    ip -n "$(namespace "$server")" route del "$client_address"
done
assert_eq "replays to self" 2 "$(stat_of a replays_to_self_total)"

say "the same checks, fed with the wrong server and the wrong count"
must_fail "a answers this" download b 0 /elsewhere/picture
must_fail "b answers this, after a handoff" download b 0 /images/picture

scenario_end
