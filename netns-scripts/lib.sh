#!/usr/bin/env bash
# The stage on which every script in this directory plays: a switch, clients, and servers with nginx and baton.
#
#                    namespace bt<id>-switch
#               .-------------------------------.
#               |  bridge br0, no address, no   |
#               |  way out; nft counters watch  |
#               |  every frame that enters it   |
#               '--+--------+--------+--------+-'
#                  |client  |a       |b       |c          (port of the switch)
#                  |        |        |        |
#                  |eth0    |eth0    |eth0    |eth0       (device in the namespace)
#            .-----+---. .--+---. .--+---. .--+---.
#            | client  | |  a   | |  b   | |  c   |       namespaces bt<id>-client, bt<id>-a, ...
#            | .100    | |  .1  | |  .2  | |  .3  |       10.77.0.0/24
#            | ::100   | |  ::1 | |  ::2 | |  ::3 |       fd77::/64
#            '---------' | nginx| | nginx| | nginx|       wildcard listener on port 80
#                        | baton| | baton| | baton|
#                        '------' '------' '------'
#
# Everything has an address of both families and the cluster has front-ends of both. Which family a scenario uses is
# one variable: `FAMILY=6 netns-scripts/handed-off-get.sh`. In a script that uses both, a4 and a6 are a's addresses.
#
# Source this file, call `topology_up`, and everything made here is gone when the script ends, however it ends:
# on success, on a failed assertion, on Ctrl-C, TERM or HUP. Names carry an id made from the process id, and no
# device ever exists outside these namespaces, so that two runs at once cannot meet.

set -Eeuo pipefail
umask 022

scripts_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project_dir=$(dirname "$scripts_dir")
scenario=$(basename "$0" .sh)
: "${BATON:=${CARGO_TARGET_DIR:-$project_dir/target}/release/baton}"

# shellcheck source=netns-scripts/lib/report.sh
. "$scripts_dir/lib/report.sh"
# shellcheck source=netns-scripts/lib/servers.sh
. "$scripts_dir/lib/servers.sh"
# shellcheck source=netns-scripts/lib/assert.sh
. "$scripts_dir/lib/assert.sh"
# shellcheck source=netns-scripts/lib/traffic.sh
. "$scripts_dir/lib/traffic.sh"

# The interpreter itself: a version manager's wrapper costs 50 ms at every start.
PYTHON=$(python3 -c 'import sys; print(sys.executable)')

# FAMILY is that of the clients' connections, CONTROL_FAMILY that of the control channel and the overlay, FRONTENDS says
# of which families the cluster has front-ends.
: "${FAMILY:=4}"
: "${CONTROL_FAMILY:=$FAMILY}" "${FRONTENDS:=4 6}"
[[ $FAMILY == 4 ]] || scenario+=-ipv$FAMILY
declare -A alias_prefix_of=([4]=198.18.0.0/16 [6]=fd00:ba70::/64)
# shellcheck disable=SC2034 # for the scripts
alias_prefix=${alias_prefix_of[$FAMILY]}
# shellcheck disable=SC2034 # for the scripts
alias_packets='net 198.18.0.0/16 or net fd00:ba70::/64' # for tcpdump
# address_of: as it is written alone. host_of: as it is written before a port and in a URL.
declare -A address_of=() host_of=()
number_the_stage() {
    local name number
    for name in a:1 b:2 c:3 client:100 router:200; do
        number=${name#*:} name=${name%:*}
        address_of[${name}4]=10.77.0.$number host_of[${name}4]=10.77.0.$number
        address_of[${name}6]=fd77::$number host_of[${name}6]="[fd77::$number]"
    done
    # Behind the router; see lib/routed.sh.
    address_of[far4]=10.78.0.9 host_of[far4]=10.78.0.9
    address_of[far6]=fd78::9 host_of[far6]="[fd78::9]"
    for name in a b c client router far; do
        address_of[$name]=${address_of[$name$FAMILY]} host_of[$name]=${host_of[$name$FAMILY]}
    done
}
number_the_stage
# shellcheck disable=SC2034 # for the scripts
client_address=${address_of[client]}
nodes=()      # the servers of this run, in order
declare -A name_of=() # how one is called in the cluster file, if otherwise
made=()       # the namespaces of this run, to be removed at the end
run_dir=      # sockets, configurations, logs and files of this run
ended_well=no # set by `scenario_end`: leaving early with status 0 is not a success

# --- namespaces ---------------------------------------------------------------------------------------------------

base36() {
    local number=$1 digits=0123456789abcdefghijklmnopqrstuvwxyz text=
    while ((number > 0)); do
        text=${digits:number % 36:1}$text
        number=$((number / 36))
    done
    printf '%s' "${text:-0}"
}

namespace() { printf 'bt%s-%s' "$run_id" "$1"; }

# in_ns NAME COMMAND...: runs COMMAND in the namespace of this run.
in_ns() {
    local name
    name=$(namespace "$1")
    shift
    ip netns exec "$name" "$@"
}

# spawn NAME LOG COMMAND...: starts COMMAND in the namespace and leaves its process id in `spawned`. `exec`, so that this
# is the id of COMMAND itself and not of a shell that waits for it.
spawn() {
    local name log=$2
    name=$(namespace "$1")
    shift 2
    (
        trap - ERR EXIT
        exec ip netns exec "$name" "$@"
    ) >>"$log" 2>&1 &
    spawned=$!
    disown
}

# process_gone PID: ended, even if nobody has collected its status yet.
process_gone() {
    local line
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 0
    [[ ${line##*) } == [ZX]* ]]
}

make_namespace() {
    local name
    name=$(namespace "$1")
    # Noted first: Ctrl-C may come between the two.
    made+=("$name")
    ip netns add "$name"
    ip -n "$name" link set lo up
}

# plug NAME: a namespace with one wire, `eth0`, into the switch port that has its name.
plug() {
    make_namespace "$1"
    local name switch
    name=$(namespace "$1")
    switch=$(namespace switch)
    # Duplicate address detection would change the state of the host under test two seconds later.
    in_ns "$1" sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad' 2>/dev/null || true
    ip -n "$name" link add eth0 type veth peer name "$1" netns "$switch"
    ip -n "$switch" link set dev "$1" master br0 up
    ip -n "$name" address add "${address_of[${1}4]}/24" dev eth0
    ip -n "$name" address add "${address_of[${1}6]}/64" dev eth0
    ip -n "$name" link set eth0 up
}

# topology_up SERVER...: the switch, the client and these servers, out of a, b and c.
topology_up() {
    [[ $EUID -eq 0 ]] || { echo "$scenario: needs root: it makes network namespaces" >&2; exit 1; }
    nodes=("$@")
    run_id=${BATON_RUN_ID:-$(base36 $$)}
    while [[ -e /run/netns/$(namespace switch) ]]; do
        # The id of a run in another process id namespace: draw another one.
        run_id=$(base36 $((RANDOM * 32768 + RANDOM)))
    done
    trap 'topology_down $?' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
    # Whoever reads the output may leave early (`| head`).
    trap 'exit 141' PIPE
    run_dir=$(trap '' INT; mktemp -d "${TMPDIR:-/tmp}/baton-$scenario-XXXXXX")
    chmod 755 "$run_dir"
    # Thousands of connections need descriptors; more than the hard limit nobody can have.
    ulimit -n "$(ulimit -Hn)"
    mkdir "$run_dir/www" "$run_dir/log"

    make_namespace switch
    local switch
    switch=$(namespace switch)
    ip -n "$switch" link add br0 type bridge
    ip -n "$switch" link set br0 up
    watch_the_switch
    plug client
    # Many connections from one address: the default range of source ports is too small for a port not to come back soon.
    in_ns client sh -c 'echo "10000 65000" >/proc/sys/net/ipv4/ip_local_port_range'
    local node
    for node in "${nodes[@]}"; do
        plug "$node"
        mkdir "$run_dir/$node"
    done
}

# end_processes NAMESPACE: whatever still runs in it, by process id; returns when nothing does.
end_processes() {
    local pids tries
    for ((tries = 0; tries < 100; tries++)); do
        pids=$(ip netns pids "$1" 2>/dev/null)
        [[ -n $pids ]] || return 0
        # shellcheck disable=SC2086 # one word per process id
        kill -KILL $pids 2>/dev/null
        sleep 0.05
    done
}

# forget_namespace NAMESPACE: what a killed baton left behind for its next start there, which will not come.
forget_namespace() {
    local inode
    inode=$(stat -Lc %i "/run/netns/$1") || return
    rm -f "/run/baton/bt0-$inode.json" "/run/baton/bt0-$inode.new" "/run/baton/netns-$inode.lock"
}

# Runs at every exit. What it removes is only what `made` and `run_dir` name.
topology_down() {
    local status=$1 name
    trap - ERR EXIT
    trap '' INT TERM HUP PIPE
    set +e
    [[ -n $run_dir ]] || exit "$status"
    if [[ $status -eq 0 && $ended_well == no ]]; then
        echo "$scenario: ended before its last check" >&2
        status=1
    fi
    if [[ $status -ne 0 && $status -lt 128 ]]; then
        dump_everything >&2
    fi
    for name in "${made[@]}"; do
        end_processes "$name"
    done
    for name in "${made[@]}"; do
        [[ -e /run/netns/$name ]] || continue
        forget_namespace "$name"
        ip netns delete "$name"
    done
    keep_logs "$status"
    rm -rf "$run_dir"
    exit "$status"
}

# scenario_end: the checks that every scenario owes, then success.
scenario_end() {
    assert_logs_clean
    assert_eq "packets with an alias address on any wire" 0 "$(wire alias-packets)"
    ended_well=yes
    say "$scenario: passed"
}

# --- waiting ------------------------------------------------------------------------------------------------------

# eventually SECONDS COMMAND...: true as soon as COMMAND is, false when it was not in time.
eventually() {
    local deadline=$((${EPOCHREALTIME/[.,]/} + $1 * 1000000))
    shift
    until "$@" >/dev/null 2>&1; do
        ((${EPOCHREALTIME/[.,]/} < deadline)) || return 1
        sleep 0.05
    done
}

# wait_until SECONDS COMMAND...: the same, and the scenario fails when it was not in time.
wait_until() {
    eventually "$@" || fail "not within $1 s: ${*:2}"
}

# --- the switch ---------------------------------------------------------------------------------------------------

# Counters live in the switch, where no server can touch them. A frame is counted where it enters, that is: when it
# leaves a server's wire. nft cannot subtract header from packet length, so payload is counted per header length (one
# set for each data offset, of each family), and tools/wire.py subtracts headers exactly. Extension headers of IPv6 are
# counted as payload; no scenario that asks for payload has any.
watch_the_switch() {
    local offset ip key
    # The length of IPv6 is without its own header.
    local -A counted=([ip]=20 [ip6]=0)
    {
        echo 'table bridge wire {'
        echo '  counter alias_packets { }'
        for ip in ip ip6; do
            key="meta iifname . $ip saddr . $ip daddr"
            for offset in {5..15}; do
                echo "  set ${ip}_payload_$offset { typeof $key . tcp sport; flags dynamic; size 65535; counter; }"
            done
            echo "  set ${ip}_errors { typeof $key; flags dynamic; size 65535; counter; }"
            echo "  set ${ip}_resets { typeof $key . tcp sport; flags dynamic; size 65535; counter; }"
        done
        echo '  set ip_traffic { typeof meta iifname . ip saddr . ip daddr . ip protocol; flags dynamic; size 65535; counter; }'
        echo '  set ip6_traffic { typeof meta iifname . ip6 saddr . ip6 daddr . ip6 nexthdr; flags dynamic; size 65535; counter; }'
        echo '  chain enters {'
        echo '    type filter hook prerouting priority -300;'
        echo "    ip saddr ${alias_prefix_of[4]} counter name alias_packets"
        echo "    ip daddr ${alias_prefix_of[4]} counter name alias_packets"
        echo "    arp saddr ip ${alias_prefix_of[4]} counter name alias_packets"
        echo "    arp daddr ip ${alias_prefix_of[4]} counter name alias_packets"
        echo "    ip6 saddr ${alias_prefix_of[6]} counter name alias_packets"
        echo "    ip6 daddr ${alias_prefix_of[6]} counter name alias_packets"
        # Who asks for the neighbour's address, or says it: the target, here the 64 bits of the prefix.
        echo "    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } @th,64,64 0xfd00ba7000000000 counter name alias_packets"
        echo '    update @ip_traffic { meta iifname . ip saddr . ip daddr . ip protocol }'
        echo '    update @ip6_traffic { meta iifname . ip6 saddr . ip6 daddr . ip6 nexthdr }'
        echo '    icmp type { destination-unreachable, redirect, time-exceeded, parameter-problem } update @ip_errors { meta iifname . ip saddr . ip daddr }'
        echo '    icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, nd-redirect } update @ip6_errors { meta iifname . ip6 saddr . ip6 daddr }'
        echo '    iifname "client" accept'
        for ip in ip ip6; do
            key="meta iifname . $ip saddr . $ip daddr . tcp sport"
            echo "    tcp flags & rst == rst update @${ip}_resets { $key }"
            for offset in {5..15}; do
                echo "    tcp doff $offset $ip length > $((counted[$ip] + 4 * offset)) update @${ip}_payload_$offset { $key }"
            done
        done
        echo '  }'
        echo '}'
    } | in_ns switch nft -f -
}

# wire QUESTION...: asks the switch's counters; see tools/wire.py for the questions.
wire() { in_ns switch nft -j list table bridge wire | "$PYTHON" "$scripts_dir/tools/wire.py" "$@"; }

# cut_control_port NODE: what a firewall between the servers does: nothing of the control channel and the overlay
# passes NODE's wire any more, in either direction, and nobody is told.
cut_control_port() {
    in_ns switch nft -f - <<END
table bridge cut_$1 {
  chain passes {
    type filter hook forward priority 0;
    iifname "$1" meta l4proto { tcp, udp } th sport 7400 drop
    iifname "$1" meta l4proto { tcp, udp } th dport 7400 drop
    oifname "$1" meta l4proto { tcp, udp } th sport 7400 drop
    oifname "$1" meta l4proto { tcp, udp } th dport 7400 drop
  }
}
END
}

mend_control_port() { in_ns switch nft delete table bridge "cut_$1"; }

# lose_packets PERCENT [WHERE]: of TCP and UDP that passes the switch: `anywhere`, `to-client`, `from-client`, `client` (both),
# or `between-servers`.
lose_packets() {
    local -A passes=([anywhere]='' [to-client]='oifname "client"' [from-client]='iifname "client"'
        [between-servers]='iifname != "client" oifname != "client"')
    local where=${2:-anywhere} rules='' place
    [[ $where != client ]] || where='to-client from-client'
    for place in $where; do
        [[ -v passes[$place] ]] || fail "nothing passes '$place'"
        rules+="    ${passes[$place]} meta l4proto { tcp, udp } numgen random mod 100 < $1 counter name lost drop"$'\n'
    done
    in_ns switch nft -f - <<END
table bridge lossy {
  counter lost { }
  chain passes {
    type filter hook forward priority 10;
$rules
  }
}
END
}

lost_packets() { in_ns switch nft list counter bridge lossy lost | awk '$1 == "packets" { print $2 }'; }

# lose_first_syn_acks: of every connection; what repeats it passes.
lose_first_syn_acks() {
    in_ns switch nft -f - <<'END'
table bridge lossy {
  set answered4 { typeof ip daddr . tcp dport . tcp sequence; flags dynamic; size 65535; }
  set answered6 { typeof ip6 daddr . tcp dport . tcp sequence; flags dynamic; size 65535; }
  chain passes {
    type filter hook forward priority 10;
    tcp flags & (syn | ack) == (syn | ack) ip daddr . tcp dport . tcp sequence != @answered4 add @answered4 { ip daddr . tcp dport . tcp sequence } drop
    tcp flags & (syn | ack) == (syn | ack) ip6 daddr . tcp dport . tcp sequence != @answered6 add @answered6 { ip6 daddr . tcp dport . tcp sequence } drop
  }
}
END
}

lose_no_more_packets() { in_ns switch nft delete table bridge lossy; }
