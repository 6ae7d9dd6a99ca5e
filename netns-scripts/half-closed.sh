#!/usr/bin/env bash
# Closes, as they are without a handoff: either side finishes first and reads on, while data flows long after the FIN; both
# finish at once; the FIN comes before the request, in it, or with it. Both ends see the same as on a server without baton,
# and nothing is left of any of these connections.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/courses.sh
. "$scripts_dir/lib/courses.sh"

courses_up
lose_first_fins
mark
walk half-closed
assert_same_courses half-closed
assert_handed_off half-closed
can_differ half-closed client_finishes_and_reads_on 6000000 5999999
assert_nothing_remains

scenario_end
