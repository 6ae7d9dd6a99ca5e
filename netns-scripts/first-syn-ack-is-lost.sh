#!/usr/bin/env bash
# The server's first SYN-ACK is lost and its second one arrives: the connection works like any other, wherever it is
# answered and however the request comes in, and all its timestamps follow the SYN-ACK that the client has seen.

# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file picture 100K
start_applications
NO_VIDEOS=yes start_cluster

start_capture client
lose_first_syn_acks

say "requests in one segment"
for _ in 1 2 3; do
    mark
    fetch client a /images/picture
    assert_answered b
    assert_same_file "the answer" picture
    assert_counts a.handed_off=1 b.accepted=1
    mark
    fetch client a /elsewhere/picture
    assert_answered a
    assert_same_file "the answer" picture
    assert_counts
done
must_fail "a answered" assert_answered b
must_fail "nothing was handed off" assert_counts a.handed_off=1 b.accepted=1
must_fail "all first ones were lost" test "$(awk -v s="$seconds" 'BEGIN { print int(s * 1000) }')" -lt 900

say "octet by octet, from a kernel that waits for an acknowledgement in between"
mark
answers=$(tool client load drip "${address_of[a]}" --connections 4 --body "$run_dir/www/picture" \
    --expect /images/picture=b --expect /elsewhere/picture=a) || fail "errors: $answers"
say "        $answers"
assert_counts a.handed_off=2 b.accepted=2
# A second for the SYN-ACK and 0.7 for the octets; a client that hears no acknowledgement waits two seconds longer.
assert_at_most "seconds for four" 9 "$("$PYTHON" -c 'import json, sys; print(int(json.loads(sys.argv[1])["seconds"]))' "$answers")"

lose_no_more_packets
stop_capture client
"$PYTHON" "$scripts_dir/tools/capture.py" check "$run_dir/capture-client.pcap" || fail "segments that the client was not promised"
ok "sequence numbers, acknowledgements and timestamps are what the client was promised"

scenario_end
