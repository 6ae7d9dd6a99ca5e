#!/usr/bin/env bash
# HTTP as clients speak it, to nginx: requests one after the other and pipelined, however they are cut into segments; uploads
# that ask first, and such that do not; answers that come before the request is complete. As without a handoff.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/courses.sh
. "$scripts_dir/lib/courses.sh"

APPLICATION=nginx courses_up
mark
walk http
assert_same_courses http
assert_handed_off http
can_differ http pipelined_in_one_segment 300000 299999
assert_nothing_remains

scenario_end
