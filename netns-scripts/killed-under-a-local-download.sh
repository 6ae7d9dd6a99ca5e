#!/usr/bin/env bash
# kill -9 of baton in the middle of a local download: the download goes on, and every octet is right. It is slowed down
# to 50 MB/s, so that far more than any buffer holds, over 500 MB, is yet to come when baton is killed.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file huge 640M
make_file small 2K
start_applications
NO_VIDEOS=yes start_cluster

received() { stat -c %s "$run_dir/huge" 2>/dev/null || echo 0; }
assert_download_by() { assert_eq "download answered by" "$1" "$(header X-Server "$run_dir/huge.headers")"; }
received_more_than() { (($(received) > $1)); }

mark
spawn client "$run_dir/log/curl.log" curl -sS --noproxy '*' --max-time 60 --limit-rate 50M \
    -D "$run_dir/huge.headers" -o "$run_dir/huge" "http://${host_of[a]}/elsewhere/huge"
download=$spawned
wait_until 10 received_more_than 30000000
assert_download_by a
must_fail "a answers" assert_download_by b
assert_counts
kill_baton a
at_kill=$(received)
wait_until 60 process_gone "$download"
assert_at_least "octets that arrived after the kill" 500000000 $(($(received) - at_kill))
cmp "$run_dir/huge" "$run_dir/www/huge" || fail "the download is not equal to the file"
ok "octet by octet equal"

say "new connections while baton is dead"
fetch client a /images/small
assert_answered a
assert_same_file "the answer" small
must_fail "nobody hands off" assert_answered b
# Of the two only b can be asked.
assert_counts

say "the same checks, fed with a handed-off connection, which baton must translate"
start_baton a
wait_for_peers
mark
spawn client "$run_dir/log/curl-2.log" curl -sS --noproxy '*' --max-time 5 --limit-rate 50M \
    -D "$run_dir/huge.headers" -o "$run_dir/cut" "http://${host_of[a]}/images/huge"
download=$spawned
wait_until 10 test -s "$run_dir/cut"
assert_download_by b
assert_counts a.handed_off=1 b.accepted=1
must_fail "it was handed off" assert_counts
kill_baton b
wait_until 20 process_gone "$download"
must_fail "the owner's baton was killed" cmp "$run_dir/cut" "$run_dir/www/huge"

scenario_end
