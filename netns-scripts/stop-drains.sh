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
        -D "$run_dir/film.headers" -o "$run_dir/film" "http://${host_of[a]}/images/film"
    download=$spawned
    wait_until 10 received_more_than 5000000
}
assert_download_whole() {
    wait_until 30 process_gone "$download"
    cmp "$run_dir/film" "$run_dir/www/film" >/dev/null || fail "the download is not equal to the file"
    ok "the download is whole"
}
draining() { [[ $(baton_ask "$1" status --json | grep -cE 'draining|stopping') -gt 0 ]]; }

# What a counts for a request meanwhile and afterwards: a front-end that stops looks at no new connection.
declare -A meanwhile=([b]=a.fallback.peer_draining=1 [a]='') afterwards=([b]=a.fallback.peer_down=1 [a]='')
for stopped in b a; do
    say "stop of $stopped in the middle of a download that a has handed to b"
    mark
    start_download
    assert_eq "download answered by" b "$(header X-Server "$run_dir/film.headers")"
    assert_counts a.handed_off=1 b.accepted=1
    pid=$(baton_pid "$stopped")
    timeout 60 "$BATON" stop --socket "$run_dir/$stopped/baton.sock" >"$run_dir/log/stop-$stopped.log" 2>&1 &
    stopping=$!
    wait_until 5 draining "$stopped"
    mark
    fetch client a /images/small
    assert_answered a
    assert_counts "${meanwhile[$stopped]}"
    process_gone "$pid" && fail "gone before the download was over"
    assert_download_whole
    wait "$stopping" || fail "stop gave status $?: $(<"$run_dir/log/stop-$stopped.log")"
    wait_until 1 process_gone "$pid"
    ok "stop returned, the process is gone"
    mark
    fetch client a /images/small
    assert_answered a
    assert_counts "${afterwards[$stopped]}"
    start_baton "$stopped"
    wait_for_peers
    mark
    fetch client a /images/small
    assert_answered b
    assert_counts a.handed_off=1 b.accepted=1
done

say "the same checks, fed with a kill instead of a stop"
must_fail "b answered" assert_answered a
must_fail "one was handed off" assert_counts
start_download
kill_baton b
kill "$download"
must_fail "b was killed" assert_download_whole

scenario_end
