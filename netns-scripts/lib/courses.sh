# shellcheck shell=bash
# The stage for courses of connections (tools/courses): the same client code against three servers.
#
#   plain       to c, which has the application and no baton
#   local       to a, which has baton, and whose rules say that a answers itself
#   handed-off  to a, whose rules say that b answers
#
# The application is the server half of tools/courses, one and the same on all three.

# shellcheck source=netns-scripts/lib/oracle.sh
. "$scripts_dir/lib/oracle.sh"

ways=(plain local handed-off)
declare -A way_to=([plain]=c [local]=a [handed-off]=a) way_answers=([plain]=c [local]=a [handed-off]=b)
declare -A way_prefix=([plain]=/remain/ [local]=/remain/ [handed-off]=/images/)
# The client's ports, from these on; below those that kernels choose.
declare -A way_ports=([plain]=6000 [local]=7000 [handed-off]=8000)

# courses COMMAND...: see tools/courses/__main__.py.
courses() { "$PYTHON" "$scripts_dir/tools/courses" "$@"; }

# courses_up: topology, applications and the cluster of a and b. The cluster file's variables may be set.
courses_up() {
    topology_up a b c
    oracle_ready
    local node
    for node in a b c; do
        spawn "$node" "$run_dir/log/courses-$node.log" "$PYTHON" "$scripts_dir/tools/courses" serve "$node" "$run_dir/$node/courses.json"
        echo "$spawned" >"$run_dir/$node/courses.process"
    done
    for node in a b c; do wait_until 10 listening "$node" 80; done
    # c is a server as there were many before: the cluster has never heard of it.
    nodes=(a b)
    # A second, so that what lingers is over before the end: nothing here is that late.
    : "${LIMITS:={ linger: 1s \}}"
    NO_VIDEOS=yes start_cluster
}

# lose_first_fins: of both sides, where the client's port is one of the last hundred of a way. What repeats them passes; so both sides have
# finished before either hears of it.
lose_first_fins() {
    local ip
    {
        echo 'table bridge crossing {'
        for ip in ip ip6; do
            echo "  set seen_$ip { typeof $ip saddr . $ip daddr . tcp sport . tcp dport . tcp sequence; flags dynamic; size 65535; }"
        done
        echo '  chain passes {'
        echo '    type filter hook forward priority 10;'
        for ip in ip ip6; do
            for port in sport dport; do
                echo "    tcp flags & fin == fin tcp $port { 6900-6999, 7900-7999, 8900-8999 } $ip saddr . $ip daddr . tcp sport . tcp dport . tcp sequence != @seen_$ip add @seen_$ip { $ip saddr . $ip daddr . tcp sport . tcp dport . tcp sequence } drop"
            done
        done
        echo '  }'
        echo '}'
    } | in_ns switch nft -f -
}

# walk GROUP: every course of the group, every way, all at once; what the clients saw in $run_dir/GROUP-WAY.json.
walk() {
    local group=$1 way walkers=()
    for way in "${ways[@]}"; do
        walk_one_way "$group" "$way" &
        walkers+=($!)
    done
    for way in "${walkers[@]}"; do wait "$way" || fail "the client failed: $(tail -n 3 "$run_dir/log/walk-$group.log")"; done
}

walk_one_way() {
    in_ns client "$PYTHON" "$scripts_dir/tools/courses" run "$1" "${address_of[${way_to[$2]}]}" "${way_prefix[$2]}" "${way_ports[$2]}" \
        >"$run_dir/$1-$2.json" 2>>"$run_dir/log/walk-$1.log"
}

# assert_same_courses GROUP [FILE]: both ends saw the same in every way, and the one who had to answered. FILE takes the
# place of what the clients whose connections were handed off saw.
assert_same_courses() {
    local group=$1 way servers arguments=() seen
    for way in "${ways[@]}"; do
        seen=$run_dir/$group-$way.json
        if [[ $way == handed-off && -n ${2:-} ]]; then seen=$2; fi
        servers=$run_dir/a/courses.json,$run_dir/b/courses.json
        [[ $way != plain ]] || servers=$run_dir/c/courses.json
        arguments+=("$way=$seen:$servers:${way_answers[$way]}")
    done
    courses compare "$group" "${arguments[@]}" >"$run_dir/log/compared-$group.log" ||
        fail "not the same: $(head -n 30 "$run_dir/log/compared-$group.log")"
    ok "both ends saw the same in every way: $(tail -n 1 "$run_dir/log/compared-$group.log")"
}

# assert_courses_can_differ GROUP COURSE FROM TO: negative control, with one thing changed that the client of COURSE saw.
assert_courses_can_differ() {
    sed "/\"course\": \"$2\"/s/$3/$4/" "$run_dir/$1-handed-off.json" >"$run_dir/doctored.json"
    cmp -s "$run_dir/$1-handed-off.json" "$run_dir/doctored.json" && fail "$3 is not in what $2 saw"
    must_fail "$2: $3 and not $4" assert_same_courses "$1" "$run_dir/doctored.json"
}

# --- nothing remains ----------------------------------------------------------------------------------------------

# sockets_of NODE...: of the kernels, on port 80, in any state but LISTEN; "state count" a line. TIME-WAIT is what has to
# remain of a connection that a server closed first.
sockets_of() {
    local node
    for node in "$@"; do in_ns "$node" ss -Htan '( sport = :80 or dport = :80 )'; done |
        awk '$1 != "LISTEN" { count[$1]++ } END { for (state in count) print state, count[state] }' | sort
}

nothing_open() { ! sockets_of a b c client | grep -qv '^TIME-WAIT '; }

# guards_of NODE: entries that keep its kernel from answering for what it has given away.
guards_of() { in_ns "$1" nft -j list ruleset | "$PYTHON" -c '
import json, sys
sets = [item["set"] for item in json.load(sys.stdin)["nftables"] if "set" in item]
print(sum(len(one.get("elem", [])) for one in sets if "guard" in one["name"]))'; }

assert_nothing_remains() {
    wait_until 5 nothing_open
    wait_until "${1:-5}" tables_empty
    local node
    for node in a b; do
        assert_eq "flows and guards that $node remembers" "0 0" "$(baton_ask "$node" flows --json | grep -c '"role"' || true) $(guards_of "$node")"
        assert_eq "octets of first flights that $node holds" 0 "$(stat_of "$node" first_flight_bytes)"
    done
    ok "nothing but TIME-WAIT is left in any kernel: $(sockets_of a b c | xargs)"
}
