#!/usr/bin/env bash
# A client may run on a server: on the front-end itself, on the selected back-end, on a third one. It is answered.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b c
make_file picture 300K
start_applications
start_cluster

say "on the front-end itself: this never leaves the host"
mark
fetch a a /images/picture
assert_answered a
assert_same_file "the answer" picture
assert_counts

say "on the selected back-end"
mark
fetch b a /images/picture
assert_answered b
assert_same_file "the answer" picture
assert_counts a.handed_off=1 b.accepted=1
mark
fetch b a /elsewhere/picture
assert_answered a
assert_same_file "the local answer" picture
assert_counts

say "on a third server"
mark
fetch c a /images/picture
assert_answered b
assert_same_file "the answer" picture
assert_counts a.handed_off=1 b.accepted=1
must_fail "b answered" assert_answered a
must_fail "one was handed off" assert_counts
printf x >>"$body"
must_fail "one octet too many" assert_same_file "the answer" picture

scenario_end
