#!/usr/bin/env bash
# forward: link. Between neighbours clients' packets go to their owner as they are, and from the second on the kernel forwards
# them: the front-end's process sees a few of thousands. What is no neighbour any more, or none for this client, gets them
# through the overlay.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/linked.sh
. "$scripts_dir/lib/linked.sh"

topology_up a b
make_file large "${SIZE:-30M}"
make_file picture 300K
start_applications
NO_VIDEOS=yes FORWARD=link start_cluster
export FETCH_TIMEOUT=100
hash=$(sha256sum <"$run_dir/www/large" | cut -d ' ' -f 1)

links_open() { wait_until 10 links_usable a 2; wait_until 10 links_usable b 2; }
links_open

# transfer WHAT ARGUMENT...: one request for b's content; sets `passed`, what came to the process of a meanwhile.
transfer() {
    local before
    before=$(handled a)
    fetch client a "$@"
    passed=$(($(handled a) - before))
}
# assert_by_link COUNT: its kernel forwarded at least as many. (Of a download these are acknowledgements, and a client that
# receives long segments sends few.)
assert_by_link() {
    assert_at_most "packets that came to the process of the front-end" 40 "$passed"
    assert_at_least "packets its kernel forwarded" "$1" $(($(forwarded a) - kernel_before))
    assert_eq "packets of this connection that a link did not take" 0 "$(stat_of a link_send_failed_packets_total)"
}

say "a download and an upload: the kernel forwards"
mark
kernel_before=$(forwarded a)
transfer /images/large
assert_answered b
assert_eq "hash of what was received" "$hash" "$(sha256sum <"$body" | cut -d ' ' -f 1)"
assert_counts a.handed_off=1 b.accepted=1
assert_by_link 50
say "        $passed packets came to the process, $(($(forwarded a) - kernel_before)) were forwarded by the kernel, $seconds s"
mark
kernel_before=$(forwarded a)
transfer /images/upload -X POST -T "$run_dir/www/large" -H 'Expect:'
assert_answered b
assert_eq "hash of what arrived" "$hash" "$(head -c 64 "$body")"
assert_counts a.handed_off=1 b.accepted=1
assert_by_link 100
say "        $passed packets came to the process, $(($(forwarded a) - kernel_before)) were forwarded by the kernel, $seconds s"
wait_until 5 nothing_learned a

say "a port used again at once is never swallowed by what was learned of it"
mark
for content in images:b elsewhere:a images:b elsewhere:a; do
    fetch client a "/${content%:*}/picture" --local-port 7777 -H 'Connection: close'
    assert_answered "${content#*:}"
    assert_same_file "the answer" picture
done
assert_counts a.handed_off=2 b.accepted=2

say "a client on the back-end: its kernel would take its own address for a forgery, so the overlay has it"
mark
by_overlay=$(stat_of a link_client_on_peer_packets_total)
fetch b a /images/picture
assert_answered b
assert_same_file "the answer" picture
assert_counts a.handed_off=1 b.accepted=1
assert_at_least "packets that went through the overlay for it" $((by_overlay + 1)) "$(stat_of a link_client_on_peer_packets_total)"

say "the link is lost under a transfer, and comes back: the overlay takes over"
slowly
in_ns b nft add table inet in_the_way
in_ns b nft add chain inet in_the_way drops '{ type filter hook prerouting priority -350; }'
in_ns b nft add rule inet in_the_way drops iifname eth0 ip daddr "${address_of[a4]}" drop
in_ns b nft add rule inet in_the_way drops iifname eth0 ip6 daddr "${address_of[a6]}" drop
wait_until 10 links_usable a 0
assert_slow_is_whole
say "an upload whose segments are too long for the overlay: they are cut"
by_overlay=$(stat_of a overlay_sent_packets_total) kernel_before=$(forwarded a)
transfer /images/upload -X POST -T "$run_dir/www/large" -H 'Expect:'
assert_answered b
assert_eq "hash of what arrived" "$hash" "$(head -c 64 "$body")"
assert_at_least "packets through the overlay" $((by_overlay + 1000)) "$(stat_of a overlay_sent_packets_total)"
must_fail "it did not go over the link" assert_by_link
in_ns b nft delete table inet in_the_way
links_open

say "kill -9 of the front-end's process: its kernel goes on forwarding"
slowly
kill_baton a
assert_slow_is_whole
start_baton a
wait_for_peers
links_open

say "kill -9 of the back-end's process: its client is reset, wherever it is in the stream"
slowly
kill_baton b
start_baton b
wait_until 15 process_gone "$slow"
must_fail "it was cut" assert_eq "hash of the slow download" "$hash" "$(sha256sum <"$run_dir/slow.body" | cut -d ' ' -f 1)"
wait_for_peers

say "nothing is left behind"
for node in a b; do
    stop_baton "$node"
    assert_eq "rules and routes of baton on $node" '' "$(for family in -4 -6; do in_ns "$node" ip "$family" rule; in_ns "$node" ip "$family" route show table all; done | grep -E '0xba7|proto 183|bt0' || true)"
    assert_eq "tables of nft on $node" '' "$(in_ns "$node" nft list tables | grep baton || true)"
done
assert_eq "ICMP errors and redirects to the client" 0 "$(wire errors '*' "$client_address")"
scenario_end
