#!/usr/bin/env bash
# Resets by either side, at every state of a connection: the other end sees what it would see without a handoff, and no state
# remains, neither in baton nor in any kernel.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/courses.sh
. "$scripts_dir/lib/courses.sh"

courses_up
mark
walk resets
assert_same_courses resets
assert_handed_off resets
can_differ resets server_answers_early_and_drains EOF ECONNRESET
assert_nothing_remains

say "while the offer is out"
# undecided: connections that their clients have reset before anybody served them.
undecided() { stat_of a reset_by_client_total; }
seen_by() { wc -l <"$run_dir/$1/courses.json"; }
before=$(undecided) seen="$(seen_by a) $(seen_by b)"
mark
in_ns client "$PYTHON" "$scripts_dir/tools/courses" reset-while-offered "${address_of[a]}" /images/ "$(baton_pid b)"
sleep 0.3
assert_eq "reset before anybody served them" 1 $(($(undecided) - before))
assert_counts
assert_eq "connections that the applications of a and b have seen" "$seen" "$(seen_by a) $(seen_by b)"
assert_nothing_remains

say "at any moment from the request to the answer"
times=150
before=$(undecided) seen=$(seen_by a)
mark
in_ns client "$PYTHON" "$scripts_dir/tools/courses" sweep "${address_of[a]}" /images/ "${SWEEP_MILLISECONDS:-4}" $times
sleep 0.3
handed_off=$(sum_since_mark 'a[.]handed_off')
assert_counts a.handed_off="$handed_off" b.accepted="$handed_off"
assert_eq "handed off or reset before" $times $((handed_off + $(undecided) - before))
assert_at_least "reset after the handoff" 10 "$handed_off"
assert_eq "connections that the application of a has seen" "$seen" "$(seen_by a)"
assert_nothing_remains

say "the same check, fed with a connection that lives"
IDLE_FOR=3 in_ns client "$PYTHON" "$scripts_dir/tools/courses" run long "${address_of[a]}" /images/ 9000 idle_and_goes_on >/dev/null &
one_is_known() { [[ $(stat_of a connections_front_end) == 1 && $(stat_of b connections_back_end) == 1 ]]; }
wait_until 5 one_is_known
sleep 0.3
must_fail "one is open" nothing_open
must_fail "one is known" tables_empty
must_fail "one is guarded" assert_eq guards 0 "$(guards_of a)"
wait $!
assert_nothing_remains

scenario_end
