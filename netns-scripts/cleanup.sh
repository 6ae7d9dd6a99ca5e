#!/usr/bin/env bash
# `baton cleanup` puts a host back without a running process: after kill -9, after kill -9 and further lives, with guards
# and connections on aliases in the kernel. It says what it did, refuses beside a running baton, and may be repeated.
# shellcheck disable=SC2016 # single quotes: what stands in them is for others to expand, or nobody
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/host.sh
. "$scripts_dir/lib/host.sh"

topology_up a b
make_file picture 20K
make_file video 40M
start_applications
NO_VIDEOS=yes write_cluster
in_ns b sysctl -qw net.ipv4.ip_forward=1
remember_host a b

# cleanup NODE: its output is in $run_dir/log/cleanup.log.
cleanup() { in_ns "$1" "$BATON" cleanup --socket "$run_dir/$1/baton.sock" >"$run_dir/log/cleanup.log" 2>&1; }
assert_said() { grep -qF -- "$1" "$run_dir/log/cleanup.log" || fail "cleanup did not say '$1': $(<"$run_dir/log/cleanup.log")"; ok "it said: $1"; }
# files_of NODE: in the state directory, about NODE's namespace.
files_of() {
    local inode
    inode=$(stat -Lc %i "/run/netns/$(namespace "$1")")
    find /run/baton -name "*-$inode.*" | sort
}
left_nothing() {
    assert_host_as_before a b
    assert_eq "files of a" "" "$(files_of a)"
    assert_eq "files of b" "" "$(files_of b)"
}
use() {
    mark
    fetch client a /images/picture
    assert_answered b
    assert_counts a.handed_off=1 b.accepted=1
}

say "nothing to do"
cleanup a # others may have left files in /run/baton
cleanup a
assert_eq "what it said" "nothing to clean up" "$(<"$run_dir/log/cleanup.log")"
left_nothing

say "not beside a running baton"
start_cluster
use
wait_for_tun a
host_state a >"$run_dir/log/running.before"
status=0
cleanup a || status=$?
assert_eq "exit status" 3 "$status"
assert_said "another baton runs in this network namespace (process $(baton_pid a), device bt0): stop it first"
host_state a | diff "$run_dir/log/running.before" - || fail "a refused cleanup changed something"
use

say "after kill -9, in the middle of a handed-off download"
in_ns client curl -sS -o /dev/null --limit-rate 200K --max-time 20 http://10.77.0.1/images/video 2>/dev/null &
download=$!
on_alias() { [[ -n $(in_ns b ss -Htn state established 'src 198.18.0.0/16') ]]; }
guarded() { [[ $(in_ns a nft list set inet baton guard4) == *elements* ]]; }
wait_until 15 on_alias
wait_until 15 guarded
for node in a b; do kill_baton "$node"; done
must_fail "a killed process tidies nothing" left_nothing
for node in a b; do
    status=0
    in_ns "$node" "$BATON" doctor >"$run_dir/log/doctor.log" || status=$?
    assert_eq "doctor's exit status" 0 "$status"
    grep -q '^warning *left-overs .*policy rules (IPv4), policy rules (IPv6), changed settings' "$run_dir/log/doctor.log" || fail "doctor sees no left-overs: $(<"$run_dir/log/doctor.log")"
done
cleanup a
assert_said 'put back `ip rule pref 0 from all lookup local`'
assert_said 'deleted `ip rule pref 3 fwmark 0x7 lookup 7770`'
assert_said 'emptied routing table 7771 of IPv4'
assert_said 'set net/ipv4/tcp_early_demux back from 0 to 1'
assert_said 'set net/ipv4/conf/eth0/forwarding back from 1 to 0'
assert_said 'deleted the nf_tables table inet baton'
assert_said 'guards: this host now resets'
assert_said "removed $run_dir/a/baton.sock: no daemon answers there"
assert_said 'the host is as it was'
cleanup b
assert_said 'destroyed 1 sockets on alias addresses'
must_fail "b was a router" assert_said 'net/ipv4/conf/eth0/forwarding back'
left_nothing
kill "$download" 2>/dev/null || true
wait "$download" 2>/dev/null || true
cleanup a
assert_eq "what it said the second time" "nothing to clean up" "$(<"$run_dir/log/cleanup.log")"
left_nothing

say "kill -9, start, kill -9: the values of before the first start"
start_cluster
for node in a b; do kill_baton "$node"; done
start_cluster
use
for node in a b; do kill_baton "$node"; done
for node in a b; do cleanup "$node"; done
left_nothing

say "kill -9, start, stop: nothing is left for it"
start_cluster
for node in a b; do kill_baton "$node"; done
start_cluster
for node in a b; do stop_baton "$node"; done
left_nothing
cleanup a
assert_eq "what it said" "nothing to clean up" "$(<"$run_dir/log/cleanup.log")"

say "what somebody else has set since stays"
start_cluster
kill_baton a
in_ns a sysctl -qw net.ipv4.tcp_early_demux=1 net.ipv4.ip_forward=1
cleanup a
assert_said 'left net/ipv4/conf/eth0/forwarding=1: it was set for all devices meanwhile'
assert_said 'left net/ipv4/tcp_early_demux=1: somebody changed it meanwhile'
in_ns a sysctl -qw net.ipv4.ip_forward=0
stop_baton b
left_nothing

say "first values that are lost are not invented"
start_baton a
kill_baton a
files_of a | xargs rm
cleanup a
assert_said 'does not say what they were. See to net/ipv4/tcp_early_demux (now 0'
in_ns a sysctl -eqw net.ipv4.tcp_early_demux=1 net.ipv4.conf.eth0.forwarding=0 net.ipv6.conf.eth0.force_forwarding=0
left_nothing

say "files of namespaces that are gone, and sockets nobody listens at"
mkdir "$run_dir/run-baton"
{
    echo "run_dir=$run_dir"
    declare -f elsewhere
} >"$run_dir/elsewhere.sh"
echo '{"namespace":{"inode":7,"cookie":1,"boot":"another"},"settings":{}}' >"$run_dir/run-baton/bt0-7.json"
: >"$run_dir/run-baton/netns-7.lock"
alive=$(stat -Lc %i "/run/netns/$(namespace b)")
: >"$run_dir/run-baton/netns-$alive.lock"
"$PYTHON" -c "import socket; socket.socket(socket.AF_UNIX).bind('$run_dir/run-baton/a.sock')"
in_ns a bash -c '. "$0"; elsewhere "$@"' "$run_dir/elsewhere.sh" "$BATON" cleanup >"$run_dir/log/cleanup.log"
assert_said 'removed /run/baton/a.sock: no daemon answers there'
assert_eq "files left" "netns-$alive.lock" "$(ls "$run_dir/run-baton")"

say "without privilege"
status=0
in_ns a setpriv --bounding-set=-all --inh-caps=-all "$BATON" cleanup 2>"$run_dir/log/cleanup.log" || status=$?
assert_eq "exit status" 3 "$status"
assert_said CAP_NET_ADMIN

scenario_end
