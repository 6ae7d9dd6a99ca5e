#!/usr/bin/env bash
# An application whose listener defers (TCP_DEFER_ACCEPT) is not told of a client before the client has said something, or
# has been silent for a while. Clients that say something in time, late, or after `silence_timeout` are all answered.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file picture 100K
start_nginx a '511 deferred'
start_nginx b '511 deferred'
SERVICE='    silence_timeout: 4s' NO_VIDEOS=yes start_cluster

for silence in 0 1 3; do
    say "silent for $silence s"
    mark
    answers=$(tool client load silent "${address_of[a]}" --connections 6 --silence "$silence" --body "$run_dir/www/picture" \
        --expect /images/picture=b --expect /elsewhere/picture=a) || fail "errors: $answers"
    assert_counts a.handed_off=3 b.accepted=3
done

say "silent for longer than anybody waits for a decision"
mark
answers=$(tool client load silent "${address_of[a]}" --connections 6 --silence 7 --body "$run_dir/www/picture" \
    --expect /images/picture=a --expect /elsewhere/picture=a) || fail "errors: $answers"
assert_counts
assert_eq "resets" 0 "$(stat_of a resets_total)"
# Three or four a second for each, and not as fast as the process can.
assert_at_most "deliveries that were repeated" 200 "$(stat_of a redeliveries_total)"

must_fail "none was handed off" assert_counts a.handed_off=3 b.accepted=3
must_fail "a decides" tool client load silent "${address_of[a]}" --connections 1 --silence 7 --expect /images/picture=b

scenario_end
