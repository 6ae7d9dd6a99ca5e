#!/usr/bin/env bash
# Probes: connections that a server plays the client of, really handed off to each peer. What is broken on the way shows with the
# step: a firewall that drops answers at the peer, an overlay that is cut, an application that hangs or is gone. By default that
# is only said; with `enforce` the peer is passed over.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file picture 100K
for node in a b; do
    mkdir -p "$run_dir/$node/health"
    echo "this is fine" >"$run_dir/$node/health/healthz"
done
start_applications
# Checks so seldom that they do not matter: what is found is found by probes.
SERVICE='    health: { http: /healthz, body: fine, interval: 1h }
    probe: { interval: 1s, timeout: 700ms, fall: 1, enforce: false }'
export SERVICE
NO_VIDEOS=yes write_cluster
start_cluster

told() { baton_ask "$1" peers --json | "$PYTHON" "$scripts_dir/tools/peers.py" "${@:2}"; }
# probed WORDS: what a's last probe through b came to.
probed() { [[ $(told a probe b web) == "$1" ]]; }
# A probe begins once a second, and takes 700 ms at most; a busy machine may take a second more.
seconds_to_notice=3
by_b() {
    mark
    fetch client a /images/picture
    assert_answered b
    assert_same_file "the answer" picture
    assert_counts a.handed_off=1 b.accepted=1
}

say "the way is whole"
wait_until 5 probed "ok "
mark
taken=$(stat_of b probes_accepted_total)
sleep 2.5
assert_at_least "probes taken by b in 2.5 s" 2 $(($(stat_of b probes_accepted_total) - taken))
assert_counts
log=$run_dir/log/nginx-b.health.log
assert_at_least "of which its nginx knows that they are probes" 2 "$(grep -c "^${address_of[a$FAMILY]} baton-probe 200$" "$log")"
# b hands nothing to a: nobody probes that.
assert_eq "probes taken by a" 0 "$(stat_of a probes_accepted_total)"
assert_eq "b of a" "none " "$(told b probe a web)"
b_serves_nothing() { [[ $(stat_of b connections_back_end) -eq 0 ]]; }
wait_until 3 b_serves_nothing
ok "probes end: b serves no connection"
by_b
must_fail "nothing is wrong yet" probed "failed way back"

# broken WHAT WORDS CAUSE CURE [COUNTS]: the last two are commands.
broken() {
    local what=$1 words=$2 cause=$3 cure=$4
    say "$what"
    $cause
    wait_until $seconds_to_notice probed "failed $words"
    ok "a says: failed at $words"
    must_fail "the way is broken" probed "ok "
    grep -q "peer=b service=web frontend=[^ ]* probe=failed at=\"$words\"" "$run_dir/log/baton-a.log" || fail "the log of a does not say so"
    $cure
    wait_until $seconds_to_notice probed "ok "
    ok "and it is whole again"
}
# Of probes only: their clients have ports that no other has.
drop_answers() {
    in_ns b nft -f - <<END
table inet hostile {
  chain forward {
    type filter hook forward priority 0;
    meta nfproto ipv$FAMILY tcp sport 80 tcp dport 512-1023 counter drop
  }
}
END
}
pass_answers() { in_ns b nft delete table inet hostile; }
cut_overlay() { in_ns switch nft 'add table bridge cut; add chain bridge cut passes { type filter hook forward priority 5; }; add rule bridge cut passes udp dport 7400 counter drop'; }
mend_overlay() { in_ns switch nft delete table bridge cut; }
# signal_nginx SIGNAL: of b, the master and its workers.
signal_nginx() {
    local processes
    processes=("$(<"$run_dir/b/nginx.process")")
    mapfile -t -O 1 processes < <(xargs -n 1 <"/proc/${processes[0]}/task/${processes[0]}/children")
    kill "-$1" "${processes[@]}"
}
unwell() { touch "$run_dir/b/health/unwell"; }
not_unwell() { rm "$run_dir/b/health/unwell"; }

broken "a firewall at b drops what goes straight back to a" "way back" drop_answers pass_answers
broken "the overlay is cut" overlay cut_overlay mend_overlay
broken "the application answers 503" application unwell not_unwell
broken "the application does not answer" application 'signal_nginx STOP' 'signal_nginx CONT'
broken "nothing listens" refused 'stop_nginx b' 'start_nginx b'
by_b

say "what only a probe suffers from is only said, unless it is to be enforced"
drop_answers
wait_until $seconds_to_notice probed "failed way back"
by_b
passed_over() {
    mark
    fetch client a /images/picture
    assert_answered a
    assert_counts a.fallback.probe_failed=1
}
must_fail "it is only said" passed_over
sed -i 's/enforce: false/enforce: true/' "$run_dir/cluster.yaml"
baton_ask a reload >/dev/null
baton_ask b reload >/dev/null
wait_until $seconds_to_notice probed "failed way back"
passed_over
must_fail "it is enforced" by_b
pass_answers
wait_until $seconds_to_notice probed "ok "
by_b

say "probe: off"
sed -i 's/probe: {.*/probe: off/' "$run_dir/cluster.yaml"
baton_ask a reload >/dev/null
baton_ask b reload >/dev/null
taken=$(stat_of b probes_accepted_total)
sleep 1.5
assert_eq "probes taken by b since" "$taken" "$(stat_of b probes_accepted_total)"
assert_eq "a of b" "none " "$(told a probe b web)"

scenario_end
