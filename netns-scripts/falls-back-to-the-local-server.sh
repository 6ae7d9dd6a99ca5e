#!/usr/bin/env bash
# When the selected server cannot take a connection, the client gets its answer from the server it connected to, soon,
# and the reason is counted: application down, baton killed, control port filtered, listen backlog full.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b c
make_file picture 100K
start_applications
start_cluster

# answered_locally REASON...: exactly one fall-back, for one of these reasons, and an answer in time.
answered_locally() {
    mark
    fetch client a /images/picture
    assert_answered a
    assert_same_file "the answer" picture
    assert_at_most "milliseconds" 2000 "$(awk -v seconds="$seconds" 'BEGIN { print int(seconds * 1000) }')"
    local reason counts
    counts=$(counts_since_mark)
    for reason in "$@"; do
        if [[ $counts == "a.fallback.$reason=1" ]]; then
            ok "handoffs and fall-backs: $counts"
            return
        fi
    done
    fail "handoffs and fall-backs: expected one of $*, got '$counts'"
}
handed_off_again() {
    mark
    fetch client a /images/picture
    assert_answered b
    assert_counts a.handed_off=1 b.accepted=1
}

handed_off_again
must_fail "nothing is wrong yet" answered_locally refused_application_down peer_down deadline session_lost refused_backlog_full

say "the application is down"
stop_nginx b
answered_locally refused_application_down
must_fail "the reason is another" answered_locally peer_down
must_fail "nothing is handed off" handed_off_again
start_nginx b
handed_off_again

say "its baton is killed"
kill_baton b
# The first connection may come before the loss is known.
answered_locally peer_down session_lost deadline
wait_until 10 peer_down a b
answered_locally peer_down
must_fail "the reason is another" answered_locally refused_application_down
start_baton b
wait_for_peers
handed_off_again

say "its control port is filtered"
cut_control_port b
answered_locally deadline peer_down session_lost
wait_until 15 peer_down a b
answered_locally peer_down
mend_control_port b
wait_for_peers
handed_off_again

say "its listen backlog is full"
stop_nginx b
spawn b "$run_dir/log/full.log" "$PYTHON" "$scripts_dir/tools/full_backlog.py" 80
full=$spawned
wait_until 10 grep -q full "$run_dir/log/full.log"
answered_locally refused_backlog_full
kill "$full"
wait_until 5 process_gone "$full"
start_nginx b
handed_off_again

scenario_end
