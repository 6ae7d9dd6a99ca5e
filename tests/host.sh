#!/bin/bash
# What baton does to a host, and that nothing of it remains. Run as root: tests/host.sh
#
#     namespace client                    namespace host
#    .-----------------.             .--------------------------.
#    |  10.77.0.9      |             |  10.77.0.1:80   server   |
#    |  fd77::9   eth0 |-------------| eth0  fd77::1            |
#    '-----------------'             |       bt0   TUN          |
#                                    |  198.18.0.0/16 aliases   |
#                                    '--------------------------'
#
# The node here has no engine: it writes back what it reads, as a node does whose policy says "local" for everything.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ $(id -u) != 0 ]]; then
    echo "skipped: needs root for network namespaces"
    exit 4
fi

HOST=bth$$-host CLIENT=bth$$-client
WORK=$(mktemp -d /tmp/bth$$-XXXXXX)
export BATON_HOST_STATE=$WORK/state
BEGUN=()
SERVICES=(10.77.0.1:80 '[fd77::1]:80' 198.18.0.0/16 fd00:ba70::/64)

clean() {
    local status=$?
    # Nothing may keep the rest from being done: not a second Ctrl-C, not a closed terminal.
    set +e
    trap '' INT TERM HUP PIPE
    trap - EXIT
    if ((status != 0)); then
        echo "---- failed (status $status), the host as it is:"
        on_host sh -c 'ip rule; ip route show table all; ip -6 rule; nft list ruleset; ip -s link' | tail -150
        tail -n 40 "$WORK"/*.log
    fi
    ((${#BEGUN[@]} == 0)) || kill -9 "${BEGUN[@]}" 2>/dev/null
    ip netns del "$HOST" 2>/dev/null
    ip netns del "$CLIENT" 2>/dev/null
    rm -rf "$WORK"
    exit "$status"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP
trap 'exit 141' PIPE

on_host() { ip netns exec "$HOST" "$@"; }
on_client() { ip netns exec "$CLIENT" "$@"; }

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
    local deadline=$((SECONDS + $1 + 1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || fail "waited in vain for: $*"
        sleep 0.02
    done
}

# play WHERE PART...: a part of tests/host.rs, in the foreground.
play() {
    local where=$1
    shift
    BATON_HOST_DRIVER="$*" ip netns exec "$where" "$DRIVER" --exact driver --nocapture
}

# begin NAME WHERE PART...: the same in the background, with a log and a line-wise input; its process is in PROCESS.
begin() {
    local name=$1 where=$2
    shift 2
    [[ -p $WORK/$name.in ]] || mkfifo "$WORK/$name.in"
    # Appended to, so that it may be emptied meanwhile.
    : >"$WORK/$name.log"
    # `ip netns exec` becomes the program, so this is the process of the program itself.
    BATON_HOST_DRIVER="$*" ip netns exec "$where" "$DRIVER" --exact driver --nocapture \
        <>"$WORK/$name.in" >>"$WORK/$name.log" 2>&1 &
    PROCESS=$!
    BEGUN+=("$PROCESS")
}

start_node() {
    begin node "$HOST" node bt0 "${SERVICES[@]}"
    NODE=$PROCESS
    wait_for 10 grep -q ^ready "$WORK/node.log"
}

# tell COMMAND ANSWER: gives the node a command and waits for its answer.
tell() {
    echo "$1" >"$WORK/node.in"
    wait_for 10 grep -q "$2" "$WORK/node.log"
}

end_of() { while kill -0 "$1" 2>/dev/null; do sleep 0.02; done; }

kill_node() {
    kill -9 "$NODE"
    wait "$NODE" 2>/dev/null || true
    wait_for 5 not on_host ip link show bt0
}

restore_node() {
    tell restore ^restored
    wait "$NODE" || fail "the node did not end well after it restored the host"
}

snapshot() {
    # shellcheck disable=SC2016 # the shell in the namespace expands it
    on_host sh -c '
        ip -d rule; ip -6 -d rule
        for family in -4 -6; do ip $family -d route show table all | sort; done
        ip -d link; ip address; nft list ruleset
        sysctl -a 2>/dev/null | grep "^net\." | grep -v nf_conntrack_count' >"$WORK/$1.snapshot"
    find "$BATON_HOST_STATE" -type f >>"$WORK/$1.snapshot"
}

same_as_before() {
    snapshot after
    diff "$WORK/before.snapshot" "$WORK/after.snapshot" || fail "$1: the host is not as it was"
}

# packets_seen CHAIN: by the client, which counts them.
packets_seen() {
    on_client nft list chain inet watch "$1" | grep -o 'packets [0-9]*' | awk '{ sum += $2 } END { print sum }'
}

captured() { [[ $(on_host nft list set inet baton alive) == *"elements = { 80"* ]]; }

not() { ! "$@"; }

packets_read() {
    : >"$WORK/node.log"
    tell read ^read=
    sed -n 's/^read=//p' "$WORK/node.log"
}

# unaffected PROCESS: no request of the load failed.
unaffected() {
    wait "$1"
    grep good= "$WORK/load.log"
    grep -q 'failed=0 ' "$WORK/load.log" || fail "requests to the local server failed while baton came and went"
}

good() { echo "ok - $*"; }

# ---------------------------------------------------------------------------------------------------------------------

cargo test --test host --no-run --message-format=json 2>/dev/null >"$WORK/build.json" || { cargo test --test host --no-run; exit 1; }
DRIVER=$(grep -o '"executable":"[^"]*/host-[^"]*"' "$WORK/build.json" | tail -1 | cut -d'"' -f4)
[[ -x $DRIVER ]] || fail "no test program"

ip netns add "$HOST"
ip netns add "$CLIENT"
ip -n "$HOST" link add eth0 type veth peer name eth0 netns "$CLIENT"
for where in "$HOST" "$CLIENT"; do
    ip -n "$where" link set lo up
    ip -n "$where" link set eth0 addrgenmode none
    ip -n "$where" link set eth0 up
done
ip -n "$HOST" address add 10.77.0.1/24 dev eth0
ip -n "$HOST" address add fd77::1/64 dev eth0 nodad
ip -n "$CLIENT" address add 10.77.0.9/24 dev eth0
ip -n "$CLIENT" address add fd77::9/64 dev eth0 nodad
ip -n "$HOST" route add default via 10.77.0.9
# So that the answer to an alias would even find its way back.
ip -n "$CLIENT" route add 198.18.0.0/16 via 10.77.0.1
ip -n "$CLIENT" route add fd00:ba70::/64 via fd77::1
on_client nft -f - <<RULES
table inet watch {
  chain aliases {
    type filter hook prerouting priority -400;
    ip saddr 198.18.0.0/16 counter
    ip6 saddr fd00:ba70::/64 counter
  }
  chain forwarded {
    type filter hook prerouting priority -400;
    iifname "eth0" ip daddr 10.88.0.0/24 counter
  }
}
RULES
# Somebody else's rules: they must be there afterwards. With them the host tracks connections.
others_rules() {
    on_host nft -f - <<RULES
table inet other {
  chain input {
    type filter hook input priority 0;
    ct state established accept
  }
}
RULES
}
others_rules
on_host sysctl -qw net.ipv4.conf.all.rp_filter=1
mkdir -p "$BATON_HOST_STATE"

begin server "$HOST" serve '[::]:80'
wait_for 5 grep -q ^serving "$WORK/server.log"
snapshot before

# -- start and stop
start_node
play "$CLIENT" load 10.77.0.1:80 0.5 | grep 'failed=0' || fail "requests failed over IPv4"
play "$CLIENT" load '[fd77::1]:80' 0.5 | grep 'failed=0' || fail "requests failed over IPv6"
(($(packets_read) > 100)) || fail "nothing was captured"
restore_node
same_as_before "start and stop"
good "start and stop leave the host as it was"

# -- local connections while baton comes and goes
for address in 10.77.0.1:80 '[fd77::1]:80'; do
    begin load "$CLIENT" load "$address" 4
    LOAD=$PROCESS
    for _ in 1 2 3 4; do
        start_node
        sleep 0.2
        restore_node
    done
    unaffected "$LOAD"
    begin load "$CLIENT" load "$address" 3
    LOAD=$PROCESS
    start_node
    kill_node
    start_node
    tell release ^released
    restore_node
    unaffected "$LOAD"
done
same_as_before "under load"
good "no local request fails while baton starts, stops and is killed"

# -- a heartbeat is a second's worth
start_node
wait_for 2 captured
tell quiet ""
wait_for 2 not captured
before=$(packets_read)
play "$CLIENT" load 10.77.0.1:80 0.3 | grep 'failed=0' || fail "the local server did not answer without heartbeats"
now=$(packets_read)
((now == before)) || fail "$((now - before)) packets were captured without heartbeats"
echo beat >"$WORK/node.in"
wait_for 2 captured
good "capture follows the heartbeat"

# -- errors about connections go where the connections are
before=$(packets_read)
play "$CLIENT" complain 10.77.0.1:80 >/dev/null
now=$(packets_read)
((now == before + 10)) || fail "of 10 ICMP errors $((now - before)) were captured"
good "ICMP errors about front-ends' packets are captured"

# -- guards
tell "guard 10.77.0.9:1000 10.77.0.1:80" ^guarded
tell "guard [fd77::9]:1000 [fd77::1]:80" ^guarded
tell "guard 10.77.0.9:1001 10.77.0.1:80" ^guarded
tell "unguard 10.77.0.9:1001 10.77.0.1:80" ^unguarded
tell "unguard 10.77.0.9:1001 10.77.0.1:80" ^unguarded
kill_node
start_node
grep -q "ready guards_found=2" "$WORK/node.log" || fail "guards did not survive the crash"
grep -q "guard 10.77.0.9:1000>10.77.0.1:80" "$WORK/node.log" || fail "an IPv4 guard is not as it was written"
grep -qF "guard [fd77::9]:1000>[fd77::1]:80" "$WORK/node.log" || fail "an IPv6 guard is not as it was written"
good "guards survive a crash and are found"

# -- a guarded connection belongs to nobody here when baton is gone
knock() { play "$CLIENT" knock "$@" | grep '^knocked'; }
[[ $(knock 10.77.0.9:1001 10.77.0.1:80) == "knocked answer" ]] || fail "a connection that is not guarded got no answer"
kill_node
[[ $(knock 10.77.0.9:1000 10.77.0.1:80) == "knocked silence" ]] || fail "a guarded connection reached the local stack"
[[ $(knock '[fd77::9]:1000' '[fd77::1]:80') == "knocked silence" ]] || fail "a guarded IPv6 connection reached the local stack"
[[ $(knock 10.77.0.9:1002 10.77.0.1:80) == "knocked answer" ]] || fail "a connection that is not guarded got no answer after a kill"
start_node
good "a guarded connection does not reach the local stack"

# -- aliases belong to the TUN, and forwarding to baton
[[ $(knock 10.77.0.9:1003 198.18.0.1:80) == "knocked silence" ]] || fail "an alias answered to the network"
[[ -z $(on_host ss -tanH src 198.18.0.0/16) ]] || fail "a SYN from the network reached an alias"
[[ $(knock '[fd77::9]:1003' '[fd00:ba70::1]:80') == "knocked silence" ]] || fail "an IPv6 alias answered to the network"
on_client ip route add 10.88.0.0/24 via 10.77.0.1
[[ $(knock 10.77.0.9:1004 10.88.0.1:80) == "knocked silence" ]] || fail "what is nowhere answered"
(($(packets_seen forwarded) == 0)) || fail "a device that did not forward before forwards for others"
good "aliases cannot be reached from the network, and the host did not become a router"

# -- a second one
begin second "$HOST" node bt1 10.77.0.1:80 198.18.0.0/16
wait "$PROCESS" && fail "a second baton started in the same namespace"
grep -q "another baton runs" "$WORK/second.log" || fail "a second baton was not refused for the right reason"
begin second "$HOST" node bt0 10.77.0.1:80 198.18.0.0/16
wait "$PROCESS" && fail "a taken device name was accepted"
grep -q "exists already" "$WORK/second.log" || fail "a taken device name was not named"
play "$CLIENT" load 10.77.0.1:80 0.2 | grep -q 'failed=0' || fail "the refused one disturbed the first"
good "a second baton is refused and disturbs nothing"

# -- aliases
begin chatter4 "$HOST" chatter 198.18.3.4 10.77.0.9:9
CHATTER4=$PROCESS
begin chatter6 "$HOST" chatter fd00:ba70::34 '[fd77::9]:9'
CHATTER6=$PROCESS
wait_for 5 grep -q ^chattering "$WORK/chatter4.log"
sleep 0.2
kill_node
sleep 0.2
start_node
sleep 0.2
on_host nft flush ruleset
sleep 0.2
kill_node
sleep 0.2
start_node
grep -q "ready guards_found=0" "$WORK/node.log" || fail "flushed guards were found"
sleep 0.1
# This one may send from any address, ours or not: only the rules hold it back.
kill "$CHATTER6"
wait "$CHATTER6" || true
restore_node
sleep 0.3
(($(packets_seen aliases) == 0)) || fail "$(packets_seen aliases) packets left from aliases"
kill "$CHATTER4"
wait "$CHATTER4" || true
good "nothing leaves from an alias: not when killed, not when the rules are flushed, not when stopping"

# -- connections on aliases, which keep sending what nobody acknowledges
on_aliases() { on_host ss -tanH src 198.18.0.0/16; on_host ss -tanH src fd00:ba70::/64; }
others_rules
start_node
tell "replay 10.77.0.9:2000 198.18.9.9:80" ^replayed
: >"$WORK/node.log"
tell "replay [fd77::9]:2000 [fd00:ba70::99]:80" ^replayed
[[ $(on_aliases | grep -c ESTAB) == 2 ]] || fail "no connections on aliases"
sleep 0.5
kill_node
sleep 1
[[ $(on_aliases | grep -c ESTAB) == 2 ]] || fail "a crash ended connections on aliases"
start_node
sleep 0.5
restore_node
[[ -z $(on_aliases) ]] || fail "connections on aliases outlived baton"
sleep 0.5
(($(packets_seen aliases) == 0)) || fail "$(packets_seen aliases) packets left from aliases"
same_as_before "connections on aliases"
good "connections on aliases are silent after a crash and gone after a stop, and nothing of them leaves"

# -- the way out of a panic
start_node
echo panic >"$WORK/node.in"
wait "$NODE" && fail "a panic is no success"
same_as_before "after a panic"
good "a panic leaves the host as it was"

# -- first values survive crashes
start_node
kill_node
start_node
kill_node
start_node
restore_node
same_as_before "killed twice"
good "killed twice, started again and stopped: the host is as it was before the first start"

# -- by hand, as docs/operations.md says
start_node
kill_node
# shellcheck disable=SC2016
on_host sh -e -c '
    nft delete table inet baton
    for v in -4 -6; do
        ip $v rule show | grep -q "^0:" || ip $v rule add pref 0 lookup local proto kernel
        ip $v rule flush protocol 183
        ip $v route flush table 7771
    done
    sysctl -qw net.ipv4.tcp_early_demux=1 net.ipv4.conf.eth0.forwarding=0 net.ipv6.conf.eth0.force_forwarding=0'
grep -q early_demux "$BATON_HOST_STATE"/bt0-*.json || fail "the file of first values does not name the settings"
rm "$BATON_HOST_STATE"/bt0-*.json "$BATON_HOST_STATE"/netns-*.lock
same_as_before "by hand"
good "what a killed process left can be removed by hand"

# -- an administrator who makes a router of the host meanwhile keeps a router
start_node
on_host sysctl -qw net.ipv4.ip_forward=1
restore_node
[[ $(on_host sysctl -n net.ipv4.conf.eth0.forwarding) == 1 ]] || fail "forwarding was taken from somebody else"
on_host sysctl -qw net.ipv4.ip_forward=0
same_as_before "a router meanwhile"
good "what somebody else set meanwhile stays"

# -- full guards
BATON_HOST_GUARDS=2 start_node
tell "guard 10.77.0.9:1 10.77.0.1:80" ^guarded
tell "guard 10.77.0.9:2 10.77.0.1:80" ^guarded
tell "guard 10.77.0.9:3 10.77.0.1:80" "^not guarded: .*full"
tell "guard 10.77.0.9:2 10.77.0.1:80" ^guarded
restore_node
good "a full guard set refuses, and repeats what it has"

# -- refusals that change nothing
refused() {
    local reason=$1
    shift
    begin refused "$HOST" node bt0 "$@"
    wait "$PROCESS" && fail "not refused: $*"
    grep -q "$reason" "$WORK/refused.log" || { cat "$WORK/refused.log"; fail "refused, but not because of: $reason"; }
}
refused "not an address of this host" 10.77.0.2:80 198.18.0.0/16
refused "an address of this host" 10.77.0.1:80 10.77.0.0/24
on_host ip rule add pref 5 from 10.0.0.0/8 lookup 100
refused "ip rule pref 5" "${SERVICES[@]}"
on_host ip rule del pref 5
on_host ip route add blackhole 10.99.0.0/16 table 7771
refused "routing table 7771" "${SERVICES[@]}"
on_host ip route del blackhole 10.99.0.0/16 table 7771
on_host nft add table inet baton
refused "baton did not make" "${SERVICES[@]}"
on_host nft delete table inet baton
firewall() { on_host nft add table inet wall && on_host nft add chain inet wall c "{ type filter hook $1 priority 0; policy $2; }"; }
firewall forward drop
refused "forward chain with policy drop" "${SERVICES[@]}"
on_host nft delete table inet wall
firewall input accept
on_host nft add rule inet wall c iifname != '"eth0"' drop
refused "drops packets from bt0 to 10.77.0.1:80" "${SERVICES[@]}"
on_host nft delete table inet wall
same_as_before "refusals"
good "refusals say why and change nothing"

# -- offload
play "$HOST" offload bt0 | grep -v ^$
same_as_before "offload"
good "super-segments go whole where the kernel takes them, and in pieces from the first on that it refuses"

# -- sockets
play "$HOST" sockets 10.77.0.1:81 | grep -v ^$
good "sock_diag tells and destroys sockets, never a listener"
BATON_HOST_GUARDS=100000 play "$HOST" measure bt0 10.77.0.1:80 | grep -v ^$
echo "all good"
