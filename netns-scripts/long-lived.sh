#!/usr/bin/env bash
# Connections that live long and say little: idle ones, keep-alive probes and user time-outs of either end, long polls, events
# that trickle, a websocket, octets one by one, urgent octets; and what a client's kernel knows of its connection. As without a
# handoff. LONG=yes: for five minutes, which is longer than any of baton's own timers for idle connections.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/courses.sh
. "$scripts_dir/lib/courses.sh"

cuts=1
if [[ ${LONG:-no} == yes ]]; then
    export IDLE_FOR=${IDLE_FOR:-300} UNTIL_THE_KERNEL_IS_ASKED=yes
    cuts=2
fi
courses_up
mark
CUTS=$cuts walk long
assert_same_courses long
say "        $(grep promises_kept "$run_dir/log/compared-long.log")"
assert_handed_off long
assert_on_the_wire long keep_alive_probes_of_the_client client.keep_alive server.keep_alive_ack
assert_on_the_wire long keep_alive_probes_of_the_server server.keep_alive client.keep_alive_ack
assert_on_the_wire long probes_before_the_request client.keep_alive server.keep_alive_ack
must_fail "nobody probes" assert_on_the_wire long idle_and_goes_on client.keep_alive
can_differ long websocket 101 200
# An end that gives up without a packet is found when the kernel is asked, which is once a minute.
REMAINS_FOR=65 assert_nothing_remains

scenario_end
