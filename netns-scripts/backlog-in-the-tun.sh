#!/usr/bin/env bash
# Thousands of packets wait for baton when it has been kept from running: what came in time counts as in time, although it is
# read late. Connections that are let go of behind such a queue are as without it: the SYN-ACK that their kernel repeats at
# baton's request stays between the two, and the kernel learns their clients' true round trips, not the hold.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/far.sh
. "$scripts_dir/lib/far.sh"

topology_up a b
make_file small 1K
start_applications
NO_VIDEOS=yes start_cluster
# So long must no round trip be: the clients are silent for 100 ms, and baton stands still for some more. A client's delayed
# acknowledgement adds 40 ms to the last one.
round_trip_max=60

# visit: twenty clients, whose answers are in the file `visit`.
visit() {
    spawn client "$run_dir/visit" "$PYTHON" "$scripts_dir/tools/backlog.py" "${address_of[a]}" /elsewhere/small "$(baton_pid a)"
    visitor=$spawned
    wait_until 20 test -s "$run_dir/visit"
}
answers() { "$PYTHON" -c 'import json, sys; print(*json.load(open(sys.argv[1]))["answered_by"].items(), sep="\n")' "$run_dir/visit" | tr -d "(),'"; }
# assert_round_trips LINE...: as the server's kernel sees its sockets.
assert_round_trips() {
    printf '%s\n' "$@" | awk -v most="$round_trip_max" '
        { split($2, part, "="); if (part[1] != "minrtt" || part[2] == "none" || part[2] + 0 > most) exit 1 }' ||
        fail "a hold was taken for a part of the round trip: $*"
    ok "$# round trips of less than $round_trip_max ms"
}
# What the clients repeat while baton stands still is their own; nothing of the server's is lost or late.
assert_server_repeats_nothing() {
    local repeated
    repeated=$("$PYTHON" "$scripts_dir/tools/capture.py" again "$run_dir/capture-client.pcap" | grep ' server ') || true
    assert_eq "connections of which the server sent a segment twice" "" "$repeated"
}

start_capture client 'tcp port 80'
mark
absorbed=$(stat_of a 'drops_total{reason="syn_ack_absorbed"}')
for round in {1..3}; do
    visit
    say "        round $round: baton stood still for $(grep -oE '[0-9]+' "$run_dir/visit" | head -n 1) ms"
    mapfile -t lines < <(answers)
    assert_eq "clients that a answered" 20 "$(printf '%s\n' "${lines[@]}" | grep -c ' a$')"
    sleep 0.2
    seen=()
    for line in "${lines[@]}"; do seen+=("$(as_the_kernel_sees a "${line% *}")"); done
    assert_round_trips "${seen[@]}"
    kill -TERM "$visitor"
    wait_until 5 process_gone "$visitor"
    rm "$run_dir/visit"
done
# What fell back because of a stall would not have been let go of behind the queue.
assert_counts a.handed_off=0
assert_eq "stalls" 0 "$(stat_of a loop_stalls_total)"
assert_eq "SYN-ACKs that were repeated, and absorbed" 60 $(($(stat_of a 'drops_total{reason="syn_ack_absorbed"}') - absorbed))
stop_capture client
assert_server_repeats_nothing

say "the same checks, fed with what is wrong"
must_fail "a hold" assert_round_trips "rtt=150.2 minrtt=110.2 rto=350 cwnd=10"
must_fail "no round trip is known" assert_round_trips "rtt=none minrtt=none rto=none cwnd=none"
start_capture a 'tcp port 80'
lose_first_syn_acks
fetch client a /elsewhere/small
lose_no_more_packets
stop_capture a
mv "$run_dir/capture-a.pcap" "$run_dir/capture-client.pcap"
must_fail "a SYN-ACK was repeated" assert_server_repeats_nothing

scenario_end
