#!/usr/bin/env bash
# A network that loses every fiftieth packet, between clients and servers and between servers: transfers in both
# directions and many short connections still arrive whole. A handoff whose messages are late may fall back, so here the
# sum counts: every connection was either handed off or answered where it arrived, and none was lost.

# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file large 30M
make_file small 2K
start_applications
export BATON_RUST_LOG=baton=info FETCH_TIMEOUT=150
NO_VIDEOS=yes start_cluster
hash=$(sha256sum <"$run_dir/www/large" | cut -d ' ' -f 1)
start_capture br0 "tcp port 80 or $alias_packets"

lose_packets 2
# assert_answered_as_counted: by b after a handoff, by a after a fall-back, and nothing else was counted.
assert_answered_as_counted() {
    case $answered_by in
        b) assert_answered b && assert_counts a.handed_off=1 b.accepted=1 ;;
        *) assert_answered a && assert_sum 1 'a[.]fallback[.].*' ;;
    esac
}

say "30 MB down"
mark
fetch client a /images/large
assert_answered_as_counted
assert_same_file "the answer" large
say "30 MB up"
mark
fetch client a /images/upload -X POST -T "$run_dir/www/large"
assert_answered_as_counted
assert_eq "hash of what arrived" "$hash" "$(head -c 64 "$body")"

say "2,000 connections"
mark
answers=$(tool client load close "${address_of[a]}" --connections 2000 --concurrency 64 --body "$run_dir/www/small" \
    --expect /images/small=any --expect /elsewhere/small=a) || fail "errors: $answers"
say "        $answers"
say "        $(counts_since_mark)"
[[ $answers =~ \"a\":\ ([0-9]+),\ \"b\":\ ([0-9]+) ]]
by_a=${BASH_REMATCH[1]} by_b=${BASH_REMATCH[2]}
# assert_adds_up BY_A BY_B: which of b's 1000 fell back, and why, is chance; what was given back is counted as both.
assert_adds_up() {
    assert_eq "fallen back, and so answered by a like its own 1000" "$1" $((1000 + $(sum_since_mark 'a[.]fallback[.].*')))
    assert_eq "handed off and not given back, and so answered by b" "$2" $(($(sum_since_mark 'a[.]handed_off') - $(sum_since_mark 'a[.]fallback[.]returned')))
    assert_eq "given by a and taken by b" "$(sum_since_mark 'a[.]handed_off')" "$(sum_since_mark 'b[.]accepted')"
}
assert_adds_up "$by_a" "$by_b"
must_fail "one more by a" assert_adds_up $((by_a + 1)) "$by_b"
must_fail "one more by b" assert_adds_up "$by_a" $((by_b + 1))
# A loss that does not happen would harm nobody. 60 MB in segments of 1448 octets, and 2000 connections.
assert_at_least "packets lost" 500 "$(lost_packets)"
lose_no_more_packets

say "and without loss"
wait_for_peers
mark
fetch client a /images/small
assert_answered b
assert_counts a.handed_off=1 b.accepted=1
stop_capture br0
assert_capture_clean() { "$PYTHON" "$scripts_dir/tools/capture.py" check "$run_dir/capture-br0.pcap" || fail "segments from another sequence space"; }
assert_capture_clean
ok "every segment to the client lies in the sequence space that it was promised"

say "the same checks, fed with what is wrong"
must_fail "b answered" assert_answered a
must_fail "one was handed off" assert_counts
must_fail "and did not fall back" assert_sum 1 'a[.]fallback[.].*'
must_fail "another file" assert_same_file "the answer" large
start_capture br0 "tcp port 80 or $alias_packets"
fetch client a /elsewhere/small
tool b stray "${address_of[a]}" "$client_address" "$local_port"
stop_capture br0
must_fail "a segment with another server's numbers" assert_capture_clean

scenario_end
