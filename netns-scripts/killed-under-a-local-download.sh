#!/usr/bin/env bash
# kill -9 of baton in the middle of a local download: the download goes on, and every octet is right. It is slowed down
# to 50 MB/s, so that far more than any buffer holds, over 500 MB, is yet to come when baton is killed.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file huge 640M
start_applications
NO_VIDEOS=yes start_cluster

received() { stat -c %s "$run_dir/huge" 2>/dev/null || echo 0; }
received_more_than() { (($(received) > $1)); }

spawn client "$run_dir/log/curl.log" curl -sS --noproxy '*' --max-time 60 --limit-rate 50M \
    -D "$run_dir/huge.headers" -o "$run_dir/huge" "http://${address_of[a]}/elsewhere/huge"
download=$spawned
wait_until 10 received_more_than 30000000
grep -qi '^x-server: a' "$run_dir/huge.headers" || fail "not answered by a"
kill_baton a
at_kill=$(received)
wait_until 60 process_gone "$download"
assert_at_least "octets that arrived after the kill" 500000000 $(($(received) - at_kill))
cmp "$run_dir/huge" "$run_dir/www/huge" || fail "the download is not equal to the file"
ok "octet by octet equal"

say "new connections while baton is dead"
fetch client a /images/huge -r 0-99
assert_eq "status of a part" 206 "$status"
assert_eq "answered by" a "$answered_by"

say "the same check, fed with a handed-off connection, which baton must translate"
start_baton a
wait_for_peers
spawn client "$run_dir/log/curl-2.log" curl -sS --noproxy '*' --max-time 5 --limit-rate 50M \
    -o "$run_dir/cut" "http://${address_of[a]}/images/huge"
download=$spawned
wait_until 10 test -s "$run_dir/cut"
kill_baton b
wait_until 20 process_gone "$download"
must_fail "the owner's baton was killed" cmp "$run_dir/cut" "$run_dir/www/huge"

scenario_end
