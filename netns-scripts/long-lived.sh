#!/usr/bin/env bash
# Resets by either side, at every state of a connection: the other end sees what it would see without a handoff, and no state
# remains, neither in baton nor in any kernel.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/courses.sh
. "$scripts_dir/lib/courses.sh"

courses_up
mark
walk long
assert_same_courses long
assert_handed_off long
can_differ long websocket 101 200
assert_nothing_remains

scenario_end
