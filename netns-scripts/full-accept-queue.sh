#!/usr/bin/env bash
# 200 requests at once for a server whose listener has room for eight. Its kernel answers with SYN cookies, and then in
# silence while the accept queue is full. Every client is answered, none is reset.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file picture 1000
start_nginx a
start_nginx b 8
export BATON_RUST_LOG=baton=info
NO_VIDEOS=yes start_cluster

for round in 1 2 3; do
    say "round $round"
    answers=$(tool client load silent "${address_of[a]}" --connections 200 --silence 0.5 --body "$run_dir/www/picture" \
        --expect /images/picture=b) || fail "errors: $answers"
    say "        $answers"
done
# shellcheck disable=SC2016 # the dollar is for awk
assert_at_least "SYN cookies of b" 1 "$(in_ns b awk '/^TcpExt: [0-9]/ { print $2 }' /proc/net/netstat)"
assert_eq "resets" 0 "$(stat_of b resets_total)"

must_fail "a does not answer this" tool client load silent "${address_of[a]}" --connections 1 --silence 0 --expect /images/picture=a

scenario_end
