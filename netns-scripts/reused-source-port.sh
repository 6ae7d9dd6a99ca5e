#!/usr/bin/env bash
# A client that uses one source port again and again, for connections answered now here, now there, never meets the
# remains of the connection before.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b c
make_file picture 20K
start_applications
start_cluster

say "now here, now there"
mark
tool client load reuse "${address_of[a]}" --connections 40 --source-port 6000 --body "$run_dir/www/picture" \
    --expect /images/picture=b --expect /elsewhere/picture=a || fail "errors"
assert_counts a.handed_off=20 b.accepted=20

say "three servers, in every order of two"
mark
tool client load reuse "${address_of[a]}" --connections 42 --source-port 6001 --body "$run_dir/www/picture" \
    --expect /images/picture=b --expect /images/picture=b --expect /elsewhere/picture=a \
    --expect /videos/picture=c --expect /videos/picture=c --expect /images/picture=b || fail "errors"
assert_counts a.handed_off=35 b.accepted=21 c.accepted=14

say "one source port to two front-ends that hand off to the same server"
mark
for front_end in a c a c; do
    tool client load reuse "${address_of[$front_end]}" --connections 2 --source-port 6002 --body "$run_dir/www/picture" \
        --expect /images/picture=b || fail "errors"
done
assert_counts a.handed_off=4 c.handed_off=4 b.accepted=8

mark
must_fail "a answers what b should" tool client load reuse "${address_of[a]}" --connections 2 --source-port 6003 --expect /elsewhere/picture=b
must_fail "nothing was handed off" assert_counts a.handed_off=2 b.accepted=2

scenario_end
