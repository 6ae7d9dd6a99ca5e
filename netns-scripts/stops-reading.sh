#!/usr/bin/env bash
# Ends that do not read: a client that stops for ten seconds, a server that stops as long, both while much is on its way; ends
# that read slowly. Windows close, are probed, and open again as without a handoff.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/courses.sh
. "$scripts_dir/lib/courses.sh"

courses_up
mark
walk windows
assert_same_courses windows
assert_handed_off windows
assert_on_the_wire windows client_stops_reading client.zero_window
assert_on_the_wire windows server_stops_reading server.zero_window
must_fail "it reads" assert_on_the_wire windows client_reads_slowly server.zero_window
can_differ windows client_stops_reading EOF ECONNRESET
assert_nothing_remains

scenario_end
