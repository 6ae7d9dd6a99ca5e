#!/usr/bin/env bash
# No packet with an alias address and none with an untranslated number leaves a server: not while baton runs, not after
# kill -9 of the back-end's baton in the middle of a download, not after its new start. And while the front-end's baton
# is dead, its kernel does not answer for a connection that it has given away.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file film 200M
make_file picture 300K
start_applications
NO_VIDEOS=yes start_cluster

assert_capture_clean() { "$PYTHON" "$scripts_dir/tools/capture.py" check "$run_dir/capture-br0.pcap" || fail "segments from another sequence space"; }
assert_no_alias_packets() { assert_eq "packets with an alias address on any wire" 0 "$(wire alias-packets)"; }
start_download() {
    rm -f "$run_dir/film"
    spawn client "$run_dir/log/curl.log" curl -sS --noproxy '*' --max-time 8 --limit-rate 30M \
        -D "$run_dir/film.headers" -o "$run_dir/film" "http://${host_of[a]}/images/film"
    download=$spawned
    wait_until 10 received_more_than 5000000
    assert_eq "download answered by" b "$(header X-Server "$run_dir/film.headers")"
}
received_more_than() { (($(stat -c %s "$run_dir/film" 2>/dev/null || echo 0) > $1)); }
# some_requests OWNER: six, three of them for OWNER.
some_requests() {
    mark
    for _ in 1 2 3; do
        fetch client a /images/picture
        assert_answered "$1"
        fetch client a /elsewhere/picture
        assert_answered a
    done
}

start_capture br0 "tcp port 80 or $alias_packets"

say "while baton runs"
some_requests b
assert_counts a.handed_off=3 b.accepted=3
must_fail "half were handed off" assert_counts
must_fail "b answered" some_requests a

say "across kill -9 of the back-end's baton, in the middle of a download"
start_download
kill_baton b
some_requests a
# The first may come before the loss is known, or while it becomes known.
assert_sum 3 'a[.]fallback[.](peer_down|deadline)'
must_fail "nothing was handed off" assert_counts a.handed_off=3
wait_until 20 process_gone "$download"
must_fail "its owner was killed" cmp "$run_dir/film" "$run_dir/www/film"
assert_no_alias_packets

say "across its new start"
start_baton b
wait_for_peers
some_requests b
assert_counts a.handed_off=3 b.accepted=3
assert_no_alias_packets

say "across kill -9 of the front-end's baton: its kernel says nothing about what it has given away"
start_download
resets=$(wire resets a "$client_address")
kill_baton a
# The client acknowledges what was on its way and keeps asking.
wait_until 20 process_gone "$download"
assert_eq "resets from a" "$resets" "$(wire resets a "$client_address")"
start_baton a
wait_for_peers
some_requests b
assert_counts a.handed_off=3 b.accepted=3
assert_no_alias_packets

say "when somebody else flushes all nftables rules of the back-end, in the middle of a download"
start_download
in_ns b nft flush ruleset
wait_until 20 process_gone "$download"
assert_no_alias_packets

stop_capture br0
assert_capture_clean
ok "every segment to the client lies in the sequence space that it was promised"

say "the same checks, fed with packets that are wrong"
start_capture br0 "tcp port 80 or $alias_packets"
fetch client a /elsewhere/picture
tool b stray "${address_of[a]}" "$client_address" "$local_port"
stop_capture br0
must_fail "a segment with another server's numbers" assert_capture_clean
declare -A stray_alias=([4]=198.18.0.77 [6]=fd00:ba70::4d)
tool b stray "${stray_alias[$FAMILY]}" "$client_address" "$local_port"
must_see() { (($(wire alias-packets) > 0)); }
wait_until 5 must_see
must_fail "a packet from an alias address" assert_no_alias_packets
in_ns switch nft reset counters table bridge wire >/dev/null

scenario_end
