#!/usr/bin/env bash
# Clients that are far away and take their time: whoever answers, the server's kernel knows the client's true round trip and
# begins with a whole initial window, no segment is sent twice on a wire that loses none, and nothing takes longer than it
# would without baton. (far-table.sh measures how long.)

# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/far.sh
. "$scripts_dir/lib/far.sh"

topology_up a b
make_file small 1K
make_file large 2M
start_applications
# Each connection is its client's first: nothing is remembered of former ones.
for node in a b; do in_ns "$node" sh -c 'echo 1 >/proc/sys/net/ipv4/tcp_no_metrics_save'; done
export BATON_RUST_LOG=baton=info

# visit NAME PATH WAIT: in the background, until `visits_end`; what it prints goes to the file NAME.
visits=()
visit() {
    spawn client "$run_dir/visit-$1" "$PYTHON" "$scripts_dir/tools/slow.py" "${address_of[a]}" "$2" --wait "$3" --keep 60
    visits+=("$spawned")
}
answer_of() { "$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$run_dir/visit-$1" "$2"; }
answered() { [[ -s $run_dir/visit-$1 ]]; }
visits_end() {
    local pid
    for pid in "${visits[@]}"; do kill -TERM "$pid"; done
    visits=()
    rm -f "$run_dir"/visit-*
}

# assert_round_trip MILLISECONDS LINE: what the kernel says of its socket, after one small answer. The client's kernel may
# delay an acknowledgement by 40 ms, and a machine at work by some more.
assert_round_trip() {
    awk -v round_trip="$1" '{
        for (i = 1; i <= NF; i++) { split($i, part, "="); is[part[1]] = part[2] }
        right = is["minrtt"] >= round_trip * 0.98 && is["minrtt"] <= round_trip + 60 && is["rtt"] <= round_trip + 60
        exit !(right && is["rto"] <= 3 * (round_trip + 60) + 200 && is["cwnd"] >= 10)
    }' <<<"$2" || fail "the kernel does not know that its client is $1 ms away, or begins with less than 10 segments: $2"
}

assert_nothing_repeated() {
    local repeated
    repeated=$("$PYTHON" "$scripts_dir/tools/capture.py" again "$run_dir/capture-client.pcap")
    assert_eq "segments sent twice (port, by whom, after seconds, how many)" "" "$repeated"
}

# look SERVER PATH WAIT...: clients who connect now, one for each wait, in the background.
# seen SERVER WAIT...: what became of them: who answered, and the kernel's view when the answer was acknowledged.
look() {
    local server=$1 path=$2 wait
    shift 2
    for wait in "$@"; do visit "$server-$wait" "$path" "$wait"; done
}
seen() {
    local server=$1 wait line
    shift
    for wait in "$@"; do
        wait_until 10 answered "$server-$wait"
        assert_eq "answered by" "$server" "$(answer_of "$server-$wait" answered_by)"
    done
    # The acknowledgement of the answer is still on its way.
    sleep "$("$PYTHON" -c "print($round_trip / 1000 + 0.1)")"
    for wait in "$@"; do
        line=$(as_the_kernel_sees "$server" "$(answer_of "$server-$wait" port)")
        assert_round_trip "$round_trip" "$line"
        ok "first byte after $wait s: $line"
    done
}

# fastest PATH: of three answers, in milliseconds.
fastest() {
    tool client slow "${address_of[a]}" "$1" --wait 0.2 --times 3 |
        "$PYTHON" -c 'import json, sys; print(int(1000 * min(json.loads(line)["seconds"] for line in sys.stdin)))'
}

say "without baton"
round_trip=100
move_client_away 100
# The machine's own congestion control first; then the one that every namespace may use.
say "        with $(in_ns a cat /proc/sys/net/ipv4/tcp_congestion_control)"
without=$(fastest /elsewhere/large)
say "        2 MB in $without ms"

NO_VIDEOS=yes start_cluster
say "the same with it"
start_capture client 'tcp port 80'
mark
# With a wrong round trip BBR takes at least half as long again.
assert_at_most "milliseconds, answered locally" $((without * 5 / 4 + 100)) "$(fastest /elsewhere/large)"
assert_at_most "milliseconds, handed off" $((without * 5 / 4 + 100)) "$(fastest /images/large)"
assert_counts a.handed_off=3 b.accepted=3
waits=(0 0.7)
for round_trip in 100 300; do
    if [[ $round_trip == 300 ]]; then
        waits=(0 0.1 0.7 1.2 3)
        move_client_away 300
        start_capture client 'tcp port 80'
        say "with reno"
        for node in a b; do in_ns "$node" sh -c 'echo reno >/proc/sys/net/ipv4/tcp_congestion_control'; done
    fi
    mark
    # Released at once, after a hold, after a hold in which the kernel has repeated its SYN-ACK, and parked.
    look a /elsewhere/small "${waits[@]}"
    look b /images/small "${waits[@]}"
    say "$round_trip ms away, answered locally"
    seen a "${waits[@]}"
    say "$round_trip ms away, handed off"
    seen b "${waits[@]}"
    count=${#waits[@]}
    assert_counts "a.handed_off=$count" "b.accepted=$count"
    visits_end
    [[ $round_trip == 300 ]] || { stop_capture client && assert_nothing_repeated; }
done

say "300 ms away, without timestamps"
in_ns client sh -c 'echo 0 >/proc/sys/net/ipv4/tcp_timestamps'
mark
look a /elsewhere/small 0 0.7
look b /images/small 0 0.7
seen a 0 0.7
seen b 0 0.7
assert_counts a.handed_off=2 b.accepted=2
visits_end
stop_capture client
assert_nothing_repeated

say "the same checks, fed with what is wrong"
must_fail "a handshake that took no time" assert_round_trip 300 "rtt=300.1 minrtt=0.2 rto=904 cwnd=10"
must_fail "a hold taken for a round trip" assert_round_trip 300 "rtt=1000.1 minrtt=300.1 rto=2904 cwnd=10"
must_fail "one segment to begin with" assert_round_trip 300 "rtt=300.1 minrtt=300.1 rto=904 cwnd=1"
must_fail "no round trip is known" assert_round_trip 300 "rtt=none minrtt=none rto=none cwnd=10"
start_capture client 'tcp port 80'
lose_first_syn_acks
fetch client a /elsewhere/small
lose_no_more_packets
stop_capture client
must_fail "a SYN-ACK was lost" assert_nothing_repeated
end_shaper

scenario_end
