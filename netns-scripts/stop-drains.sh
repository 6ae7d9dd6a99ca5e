#!/usr/bin/env bash
# `baton stop` waits for handed-off connections, whether it stops their back-end or their front-end; meanwhile new
# connections are served where they arrive.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file film 80M
make_file small 2K
start_applications
NO_VIDEOS=yes start_cluster

received_more_than() { (($(stat -c %s "$run_dir/film" 2>/dev/null || echo 0) > $1)); }
start_download() {
    rm -f "$run_dir/film"
    spawn client "$run_dir/log/curl.log" curl -sS --noproxy '*' --max-time 60 --limit-rate 20M \
        -o "$run_dir/film" "http://${address_of[a]}/images/film"
    download=$spawned
    wait_until 10 received_more_than 5000000
}
assert_download_whole() {
    wait_until 30 process_gone "$download"
    cmp "$run_dir/film" "$run_dir/www/film" >/dev/null || fail "the download is not equal to the file"
    ok "the download is whole"
}
draining() { [[ $(baton_ask "$1" status --json | grep -cE 'draining|stopping') -gt 0 ]]; }

for stopped in b a; do
    say "stop of $stopped in the middle of a download that a has handed to b"
    mark
    start_download
    assert_counts a.handed_off=1 b.accepted=1
    pid=$(baton_pid "$stopped")
    timeout 60 "$BATON" stop --socket "$run_dir/$stopped/baton.sock" >"$run_dir/log/stop-$stopped.log" 2>&1 &
    stopping=$!
    wait_until 5 draining "$stopped"
    fetch client a /images/small
    assert_answered a
    process_gone "$pid" && fail "gone before the download was over"
    assert_download_whole
    wait "$stopping" || fail "stop gave status $?: $(<"$run_dir/log/stop-$stopped.log")"
    wait_until 1 process_gone "$pid"
    ok "stop returned, the process is gone"
    fetch client a /images/small
    assert_answered a
    start_baton "$stopped"
    wait_for_peers
    mark
    fetch client a /images/small
    assert_answered b
    assert_counts a.handed_off=1 b.accepted=1
done

say "the same check, fed with a kill instead of a stop"
start_download
kill_baton b
kill "$download"
must_fail "b was killed" assert_download_whole

scenario_end
