#!/usr/bin/env bash
# 200 requests at once for a server whose listener has room for eight. Its kernel answers with SYN cookies, and then in
# silence while the accept queue is full. A peer does not take what would be a cookie, and the front-end answers; clients
# of its own it serves all the same. Every client is answered, none is reset.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file picture 1000
start_nginx a
start_nginx b 8
export BATON_RUST_LOG=baton=info
NO_VIDEOS=yes start_cluster

# SYN cookies that b's kernel has sent.
# shellcheck disable=SC2016 # the dollar is for awk
cookies() { in_ns b awk '/^TcpExt: [0-9]/ { print $2 }' /proc/net/netstat; }

for round in 1 2 3; do
    say "round $round, from a to b"
    mark
    answers=$(tool client load silent "${address_of[a]}" --connections 200 --silence 0.5 --body "$run_dir/www/picture" \
        --expect /images/picture=any) || fail "errors: $answers"
    say "        $answers"
    # How many find room is chance; every other one is a's, for this reason alone.
    [[ $answers =~ \"a\":\ ([0-9]+),\ \"b\":\ ([0-9]+) ]] || fail "not both have answered"
    by_a=${BASH_REMATCH[1]} by_b=${BASH_REMATCH[2]}
    assert_eq "answers" 200 $((by_a + by_b))
    assert_counts a.handed_off="$by_b" b.accepted="$by_b" a.fallback.refused_backlog_full="$by_a"
done
must_fail "one was not handed off" assert_counts a.handed_off=$((by_b + 1)) b.accepted="$by_b" a.fallback.refused_backlog_full="$by_a"
assert_at_least "SYN cookies of b" 1 "$(cookies)"

say "b's own, silent until they are parked: each is replayed to b itself"
mark
before=$(cookies)
answers=$(tool client load silent "${address_of[b]}" --connections 200 --silence 4 --body "$run_dir/www/picture" \
    --expect /images/picture=b) || fail "errors: $answers"
say "        $answers"
assert_counts
assert_eq "replays to self" 200 "$(stat_of b replays_to_self_total)"
assert_at_least "SYN cookies of b" $((before + 1)) "$(cookies)"
assert_eq "resets of a and b" "0 0" "$(stat_of a resets_total) $(stat_of b resets_total)"

must_fail "b answers this" tool client load silent "${address_of[b]}" --connections 1 --silence 0 --expect /images/picture=a

scenario_end
