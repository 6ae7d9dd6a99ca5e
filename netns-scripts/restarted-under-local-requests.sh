#!/usr/bin/env bash
# baton is stopped and started, again and again, under a stream of requests to the local server: not one fails.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file small 2K
start_applications
export BATON_RUST_LOG=baton=info
NO_VIDEOS=yes start_cluster

served_more_than() { (($(connections_accepted a) > $1)); }
# let_through N: until nginx on a has served so many more.
let_through() { wait_until 20 served_more_than $(($(connections_accepted a) + $1)); }
start_stream() {
    rm -f "$run_dir/stream.end"
    spawn client "$1" "$PYTHON" "$scripts_dir/tools/load.py" stream "${address_of[a]}" --concurrency 4 \
        --until "$run_dir/stream.end" --expect /elsewhere/small=a --body "$run_dir/www/small"
    stream=$spawned
}
end_stream() {
    touch "$run_dir/stream.end"
    wait_until 40 process_gone "$stream"
    tail -n 1 "$1"
}
assert_no_errors() { grep -q '"errors": 0,' "$1" || fail "$(tail -n 1 "$1")"; }

start_stream "$run_dir/log/stream.log"
for _ in 1 2 3; do
    let_through 500
    stop_baton a
    let_through 500
    start_baton a
done
let_through 500
end_stream "$run_dir/log/stream.log"
assert_no_errors "$run_dir/log/stream.log"
ok "not one request failed"

say "and a is whole again"
wait_for_peers
mark
fetch client a /images/small
assert_answered b
assert_counts a.handed_off=1 b.accepted=1
must_fail "b answered" assert_answered a
must_fail "one was handed off" assert_counts

say "the same check, fed with a restart of nginx itself"
start_stream "$run_dir/log/stream-2.log"
let_through 500
stop_nginx a
start_nginx a
end_stream "$run_dir/log/stream-2.log"
must_fail "the server was away" assert_no_errors "$run_dir/log/stream-2.log"

scenario_end
