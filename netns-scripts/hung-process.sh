#!/usr/bin/env bash
# A baton that hangs (SIGSTOP) does not take the local server with it: that answers within two seconds. When baton runs
# again (SIGCONT), handoff works again.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file picture 100K
start_applications
NO_VIDEOS=yes start_cluster

milliseconds() { awk -v seconds="$seconds" 'BEGIN { print int(seconds * 1000) }'; }
handed_off() { fetch client a /images/picture && [[ $status/$answered_by == 200/b ]]; }

mark
fetch client a /images/picture
assert_answered b
assert_counts a.handed_off=1 b.accepted=1

say "the front-end's baton hangs"
mark
freeze_baton a
fetch client a /elsewhere/picture
assert_answered a
assert_same_file "the answer" picture
assert_at_most "milliseconds" 2000 "$(milliseconds)"
fetch client a /images/picture
assert_answered a
assert_at_most "milliseconds, once the host knows" 500 "$(milliseconds)"
must_fail "nobody hands off" handed_off
thaw_baton a
# Its kernel went on without it: it has nothing to count.
assert_counts
must_fail "nothing fell back" assert_counts a.fallback.deadline=1
wait_until 15 handed_off
wait_for_peers
mark
fetch client a /images/picture
assert_answered b
assert_same_file "the answer" picture
assert_counts a.handed_off=1 b.accepted=1

say "the back-end's baton hangs"
mark
freeze_baton b
fetch client a /images/picture
assert_answered a
assert_at_most "milliseconds" 2000 "$(milliseconds)"
fetch client b /elsewhere/picture
assert_answered b
assert_at_most "milliseconds" 2000 "$(milliseconds)"
thaw_baton b
assert_counts a.fallback.deadline=1
wait_until 15 handed_off
wait_for_peers
mark
fetch client a /images/picture
assert_answered b
assert_counts a.handed_off=1 b.accepted=1
must_fail "b answered" assert_answered a

scenario_end
