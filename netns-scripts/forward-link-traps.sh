#!/usr/bin/env bash
# forward: link, and what may come in its way: a router between the nodes, a port used again at once, entries that are forgotten,
# lost probes, flushed rules, a rule that drops what is forwarded. LONG=yes: also another cluster file, a policy of drop that is
# there before the start, a back-end whose host is gone; and it waits until the kernel itself forgets (a minute), a dropping rule is
# found to be gone, and the host is given up.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/routed.sh
. "$scripts_dir/lib/routed.sh"
# shellcheck source=netns-scripts/lib/kept.sh
. "$scripts_dir/lib/kept.sh"
# shellcheck source=netns-scripts/lib/linked.sh
. "$scripts_dir/lib/linked.sh"

ip=$([[ $FAMILY == 6 ]] && echo ip6 || echo ip)
topology_up a b
make_file large "${SIZE:-20M}"
make_file picture 100K
add_router
# It forwards what another node answers with a's address.
for device in all eth0 far; do in_ns router sh -c "echo 0 >/proc/sys/net/ipv4/conf/$device/rp_filter"; done
nodes+=(far)
mkdir "$run_dir/far"
start_applications
RULES='
      - { name: images, when: { path: "/images/*" }, send_to: b }
      - { name: videos, when: { path: "/videos/*" }, send_to: far }'
RULES=$RULES FORWARD=auto start_cluster
wait_until 10 links_usable a 2
wait_until 10 links_usable b 2

# says NODE PEER TEXT: what `baton peers` says of the link to a peer.
says() { baton_ask "$1" peers | grep -E "^$2 +ipv$FAMILY " | grep -qF -- "$3"; }

say "a node behind a router is no neighbour"
mark
sent=$(stat_of a link_sent_packets_total) by_overlay=$(stat_of a overlay_sent_packets_total)
fetch client a /videos/picture
assert_answered far
assert_same_file "the answer" picture
assert_counts a.handed_off=1 far.accepted=1
assert_eq "packets sent over a link" "$sent" "$(stat_of a link_sent_packets_total)"
assert_at_least "packets through the overlay" $((by_overlay + 2)) "$(stat_of a overlay_sent_packets_total)"
says a far "overlay: ${address_of[far]} is behind a router" || fail "a does not say so: $(baton_ask a peers)"
must_fail "b is a neighbour" says a b overlay:

# Meanwhile every other probe is lost; see below.
lost=$(stat_of a link_lost_total) sent=$(stat_of a link_probes_sent_total) back=$(stat_of a link_probes_answered_total)
in_ns b nft -f - <<END
table inet in_the_way { chain drops {
    type filter hook prerouting priority -350;
    iifname eth0 $ip saddr ${address_of[a]} $ip daddr ${address_of[a]} tcp dport 80 numgen inc mod 2 0 drop
}; }
END

say "what is forgotten comes back, and is learned again"
mark
keep 6100 /images/picture
for _ in 1 2; do
    ask
    assert_eq "the answer" "b 102400" "$kept_answer"
done
has_learned a 6100 || fail "it was not learned"
if [[ -n ${LONG:-} ]]; then
    sleep 50
    ask
    sleep 20
    has_learned a 6100 || fail "a packet does not begin the minute anew"
    sleep 50
else
    for set in "learned$FAMILY" "learned${FAMILY}_1"; do in_ns a nft flush set inet baton "$set"; done
fi
nothing_learned a 6100 || fail "it was not forgotten"
before=$(handled a)
ask
assert_eq "the answer on the connection that was idle" "b 102400" "$kept_answer"
assert_at_least "packets that came to the process" $((before + 1)) "$(handled a)"
has_learned a 6100 || fail "it was not learned again"
let_go
assert_counts a.handed_off=1 b.accepted=1

# anew PORT: a client that is gone without a word, and one that has its port at once. What was learned of the first is there.
anew() {
    keep "$1" /images/picture abort
    ask
    ask
    has_learned a "$1" || return 1
    in_ns client nft -f - <<<"table inet silent { chain leaves { type filter hook output priority 0; tcp sport $1 tcp flags & rst == rst drop; }; }"
    kill -KILL "$kept_pid"
    { wait "$kept_pid" || true; } 2>/dev/null
    in_ns client nft delete table inet silent
    has_learned a "$1" || return 1
    FETCH_TIMEOUT=2 fetch client a /elsewhere/picture --local-port "$1"
    [[ $status/$answered_by == 200/a ]]
}
say "a port that is used again at once, while the connection before is still there"
mark
anew 6200 || fail "it was caught by what had been learned: $last_fetch"
assert_counts a.handed_off=1 b.accepted=1
rules=$(in_ns a nft list chain inet baton "on_link$FAMILY" | grep @learned | grep -v 'delete @')
in_ns a nft -f - <<<"flush chain inet baton on_link$FAMILY; table inet baton { chain on_link$FAMILY { $rules; }; }"
must_fail "rules that look up SYNs like everything else" anew 6202

say "every other probe was lost meanwhile: no reason to leave a link"
slowly
assert_slow_is_whole
assert_at_least "probes that did not come back" 3 $(($(stat_of a link_probes_sent_total) - sent - $(stat_of a link_probes_answered_total) + back))
assert_eq "links lost meanwhile" "$lost" "$(stat_of a link_lost_total)"
in_ns b nft delete table inet in_the_way

say "somebody flushes all rules: they are put back, and connections go on"
restored() { [[ $(stat_of "$1" rules_restored_total) -eq $2 ]]; }
slowly
in_ns b nft flush ruleset
wait_until 5 restored b 1
assert_slow_is_whole
# At the front-end only a client that says nothing meanwhile: its kernel resets others.
keep 6300 /images/picture
ask
assert_eq "the answer" "b 102400" "$kept_answer"
in_ns a nft flush ruleset
wait_until 5 restored a 1
ask
assert_eq "the answer on the connection that was idle" "b 102400" "$kept_answer"
mark
fetch client a /images/picture
assert_answered b
assert_counts a.handed_off=1 b.accepted=1
guards() { in_ns a nft -j list set inet baton "guard$FAMILY" | grep -o '"concat"' | wc -l; }
assert_eq "guards" "$(baton_ask a flows --json | grep -c '"role": "front-end"')" "$(guards)"
freeze_baton a
in_ns a nft flush ruleset
ask
must_fail "nobody puts them back in time" assert_eq "the answer" "b 102400" "$kept_answer"
thaw_baton a
wait_until 5 restored a 2
# While b had no rules it forwarded to a what it got from there, and said to the client that there is a shorter way: a few times a second.
redirects=$(wire errors '*' "$client_address")
assert_at_most "redirects to the client" 30 "$redirects"
let_go
wait_until 10 links_usable a 2
wait_until 10 links_usable b 2

say "a rule that drops what is forwarded, made under a download"
slowly
in_ns a nft -f - <<<'table inet in_the_way { chain passes { type filter hook forward priority 0; iifname eth0 oifname eth0 drop; }; }'
wait_until 10 links_usable a 1
assert_slow_is_whole
says a b in_the_way || fail "a does not name the chain: $(baton_ask a peers)"
assert_at_least "times it was found" 1 "$(stat_of a link_held_up_total)"
last_checks() {
    assert_eq "ICMP errors and redirects to the client" "$redirects" "$(wire errors '*' "$client_address")"
    scenario_end
}
if [[ -z ${LONG:-} ]]; then
    last_checks
    exit
fi

say "that rule is gone: the link is used again"
in_ns a nft delete table inet in_the_way
wait_until 40 links_usable a 2

say "another cluster file, without links, under a download"
slowly
for node in "${nodes[@]}"; do
    sed 's/forward: auto/forward: overlay/' "$run_dir/cluster.yaml" >"$run_dir/$node/next"
done
cp "$run_dir/cluster.yaml" "$run_dir/linked.yaml"
cp "$run_dir/a/next" "$run_dir/cluster.yaml"
for node in b a far; do baton_ask "$node" reload; done
wait_until 5 links_usable a 0
assert_slow_is_whole
cp "$run_dir/linked.yaml" "$run_dir/cluster.yaml"
for node in b a far; do baton_ask "$node" reload; done
wait_until 10 links_usable a 2

say "the same as a policy of drop, there before the start"
kill_baton a
in_ns a nft -f - <<<'table inet in_the_way { chain passes { type filter hook forward priority 0; policy drop; iifname bt0 accept; oifname bt0 accept; }; }'
start_baton a
wait_for_peers
wait_until 5 says a b in_the_way
fetch client a /images/picture
assert_answered b
assert_same_file "the answer" picture
assert_eq "links that are used" 0 "$(stat_of a links_usable)"
kill_baton a
in_ns a nft delete table inet in_the_way
start_baton a
wait_for_peers
wait_until 10 links_usable a 2

say "the back-end's host is gone"
slowly
ip -n "$(namespace switch)" link set dev b down
wait_until 10 links_usable a 0
mark
fetch client a /images/picture
assert_answered a
assert_same_file "the answer" picture
wait_until 50 process_gone "$slow"
grep -q 'reset' "$run_dir/log/slow.log" || fail "the client was not reset: $(<"$run_dir/log/slow.log")"
last_checks
