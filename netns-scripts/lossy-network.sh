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
start_capture br0 'tcp port 80 or net 198.18.0.0/16'

lose_packets 2
say "30 MB down"
fetch client a /images/large
[[ $answered_by == [ab] ]] || fail "answered by '$answered_by'"
assert_same_file "the answer" large
say "30 MB up"
fetch client a /images/upload -X POST -T "$run_dir/www/large"
[[ $answered_by == [ab] ]] || fail "answered by '$answered_by'"
assert_eq "hash of what arrived" "$hash" "$(head -c 64 "$body")"

say "2,000 connections"
mark
answers=$(tool client load close "${address_of[a]}" --connections 2000 --concurrency 64 --body "$run_dir/www/small" \
    --expect /images/small=any --expect /elsewhere/small=a) || fail "errors: $answers"
say "        $answers"
counts=$(counts_since_mark)
say "        $counts"
assert_eq "handed off or fallen back, together" 1000 \
    "$(tr ' ' '\n' <<<"$counts" | sed -nE 's/^a\.(handed_off|fallback\..*)=//p' | awk "{ sum += \$1 } END { print sum + 0 }")"
lose_no_more_packets

say "and without loss"
wait_for_peers
mark
fetch client a /images/small
assert_answered b
assert_counts a.handed_off=1 b.accepted=1
stop_capture br0
"$PYTHON" "$scripts_dir/tools/capture.py" check "$run_dir/capture-br0.pcap" || fail "segments from another sequence space"
ok "every segment to the client lies in the sequence space that it was promised"

scenario_end
