#!/usr/bin/env bash
# Clients that are far away and take their time: whoever answers, the server's kernel knows the client's true round trip and
# begins with a whole initial window, no segment is sent twice on a wire that loses none, and nothing takes longer than it
# would without baton. (far-table.sh measures it.)

# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/far.sh
. "$scripts_dir/lib/far.sh"

topology_up a b
make_file small 1K
make_file large 1M
start_applications
# Each connection is its client's first: nothing is remembered of former ones.
for node in a b; do in_ns "$node" sh -c 'echo 1 >/proc/sys/net/ipv4/tcp_no_metrics_save'; done
export BATON_RUST_LOG=baton=info

# control ALGORITHM: of congestion, for connections from now on; false where the kernel does not have it.
control() {
    local node
    for node in a b; do in_ns "$node" sh -c "echo $1 >/proc/sys/net/ipv4/tcp_congestion_control" 2>/dev/null || return 1; done
}

# visit NAME PATH WAIT: in the background; what it prints goes to the file NAME.
visits=()
visit() {
    rm -f "$run_dir/visit-$1"
    spawn client "$run_dir/visit-$1" "$PYTHON" "$scripts_dir/tools/slow.py" "${address_of[a]}" "$2" --wait "$3" --keep "${KEEP:-0}"
    visits+=("$spawned")
}
answer_of() { "$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$run_dir/visit-$1" "$2"; }
answered() { [[ -s $run_dir/visit-$1 ]]; }
visits_end() {
    local pid
    for pid in "${visits[@]}"; do wait_until 30 process_gone "$pid"; done
    visits=()
}

# assert_true_round_trip LINE: what the kernel says of its socket, after one small answer.
assert_true_round_trip() {
    awk -v round_trip="$round_trip" '{
        for (i = 1; i <= NF; i++) { split($i, part, "="); is[part[1]] = part[2] }
        right = is["minrtt"] >= round_trip * 0.98 && is["minrtt"] <= round_trip + 15 && is["rtt"] <= round_trip * 1.15 + 15
        exit !(right && is["rto"] <= 3 * round_trip + 250 && is["cwnd"] >= 10)
    }' <<<"$1" || fail "at $round_trip ms: $1"
}

assert_nothing_repeated() {
    local repeated
    repeated=$("$PYTHON" "$scripts_dir/tools/capture.py" again "$run_dir/capture-client.pcap")
    assert_eq "segments sent twice (port, by whom, after seconds, how many)" "" "$repeated"
}

# look SERVER PATH WAITS: one client for each wait; the kernel's view of each while the connection is open.
look() {
    local wait seen
    for wait in $3; do KEEP=9 visit "$wait" "$2" "$wait"; done
    for wait in $3; do
        wait_until 10 answered "$wait"
        assert_eq "answered by" "$1" "$(answer_of "$wait" answered_by)"
        seen=$(as_the_kernel_sees "$1" "$(answer_of "$wait" port)")
        assert_true_round_trip "$seen"
        ok "first byte after $wait s: $seen"
    done
}

NO_VIDEOS=yes start_cluster
for round_trip in 100 300; do
    say "$round_trip ms away"
    move_client_away "$round_trip"
    start_capture client 'tcp port 80'
    mark
    say "answered locally"
    look a /elsewhere/small "0 0.1 0.7 1.2"
    say "handed off"
    look b /images/small "0 0.1 0.7 1.2"
    say "parked, then answered locally, and handed off"
    look a /elsewhere/small "3"
    look b /images/small "3"
    visits_end
    stop_capture client
    assert_nothing_repeated
    assert_counts a.handed_off=5 b.accepted=5
done
must_fail "seen from another distance" env round_trip=100 bash -c "$(declare -f assert_true_round_trip fail); assert_true_round_trip 'rtt=300 minrtt=300 rto=500 cwnd=10'"
scenario_end
