#!/usr/bin/env bash
# What stands between two servers, because the kernel of one promises what the kernel of the other does not grant, is said
# by both: as soon as a session opens, and as soon as a setting changes; with the name of the setting and what to do; until
# it is mended. What is harmless is not said.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/settings.sh
. "$scripts_dir/lib/settings.sh"

topology_up a b
start_nginx a
start_nginx b
usual
NO_VIDEOS=yes start_cluster

# warnings_of NODE: as a program reads them, one a line.
warnings_of() { baton_ask "$1" peers --json | "$PYTHON" "$scripts_dir/tools/peers.py" warnings; }
# both_warn [SENTENCE]: both servers say exactly this, to programs and to people.
both_warn() {
    local node
    for node in a b; do
        [[ $(warnings_of $node) == "${1:-}" ]] || return 1
        [[ $(baton_ask $node peers | grep '^warning: ') == "${1:+warning: $1}" ]] || return 1
    done
}
# logged NODE SENTENCE: how often it was warned of in NODE's log.
logged() { grep -cF "WARN  baton::node::promises] $2" "$run_dir/log/baton-$1.log" || true; }
# said_and_mended SENTENCE SETTING...: by both servers, and once.
said_and_mended() {
    local sentence=$1 before_a before_b
    shift
    before_a=$(logged a "$sentence") before_b=$(logged b "$sentence")
    set_at "$@"
    wait_until 6 both_warn "$sentence"
    ok "both say: $sentence"
    assert_eq "        times logged by a and b" "1 1" "$(($(logged a "$sentence") - before_a)) $(($(logged b "$sentence") - before_b))"
}

say "said by both, until it is mended"
both_warn || fail "$(warnings_of a; warnings_of b)"
refused() { echo "$1 on b but $2 on a: handoffs to b of connections with $3 are refused; set net.ipv4.$4 on b"; }
said_and_mended "$(refused 'tcp_sack is off' on SACK tcp_sack=1)" b:tcp_sack=0
said_and_mended "$(refused 'tcp_timestamps is off' on timestamps tcp_timestamps=1)" b:tcp_sack=1 b:tcp_timestamps=0
said_and_mended "$(refused 'tcp_window_scaling is off' on 'window scaling' tcp_window_scaling=1)" \
    b:tcp_timestamps=1 b:tcp_window_scaling=0
said_and_mended "tcp_rmem makes window scale 14 on a but 7 on b, with a first window of about 65535 octets there: handoffs to b \
of connections with window scaling are refused; set net.ipv4.tcp_rmem (and net.core.rmem_max) alike on both" \
    b:tcp_window_scaling=1 a:"$(scale 14)"
usual
said_and_mended "$(refused 'tcp_ecn is 0' 2 ECN tcp_ecn=2)" b:tcp_ecn=0
must_fail "both still warn" both_warn

say "what only the front-end lacks is no reason to warn"
# That the warning goes shows that a has been read again.
set_at a:tcp_{sack,timestamps,window_scaling,ecn}=0
wait_until 6 both_warn
set_at a:tcp_{sack,timestamps,window_scaling}=0
sleep 1.5
both_warn || fail "$(warnings_of a; warnings_of b)"
usual

say "said as soon as a session opens"
stop_baton b
set_at b:tcp_sack=0
before=$(logged a 'tcp_sack is off')
start_baton b
wait_for_peers
both_warn "$(refused 'tcp_sack is off' on SACK tcp_sack=1)" || fail "$(warnings_of a; warnings_of b)"
assert_eq "times logged by a since then" 1 $(($(logged a 'tcp_sack is off') - before))
usual
wait_until 6 both_warn
scenario_end
