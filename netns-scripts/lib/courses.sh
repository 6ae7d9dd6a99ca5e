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

# courses_up: topology, applications and the cluster of a and b. APPLICATION=nginx: that instead. The cluster file's variables may
# be set.
courses_up() {
    local node
    topology_up a b c
    oracle_ready
    for node in a b c; do : >"$run_dir/$node/courses.json"; done
    if [[ ${APPLICATION:-} == nginx ]]; then
        courses content 300000 >"$run_dir/www/picture"
        for node in a b c; do write_limited_server "$node"; done
        start_applications
    else
        for node in a b c; do
            spawn "$node" "$run_dir/log/courses-$node.log" "$PYTHON" "$scripts_dir/tools/courses" serve "$node" "$run_dir/$node/courses.json"
        done
    fi
    for node in a b c; do wait_until 10 listening "$node" 80; done
    # c is a server as there were many before: the cluster has never heard of it.
    nodes=(a b)
    # A second, so that what lingers is over before the end: nothing here is that late.
    : "${LIMITS:={ linger: 1s \}}"
    NO_VIDEOS=yes start_cluster
}

# write_limited_server NODE: a name under which nginx takes no large uploads.
write_limited_server() {
    mkdir -p "$run_dir/$1/servers"
    cat >"$run_dir/$1/servers/limited.conf" <<END
server {
  listen 80;
  listen [::]:80;
  server_name limited;
  add_header X-Server $1 always;
  client_max_body_size 1k;
  location / { proxy_pass http://unix:$run_dir/$1/upload.sock:; }
}
END
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

# cut_when_connected COURSES: from now on the switch loses everything from and to the client's ports from 6500, 7500 and 8500
# on, once every way has that many connections from there.
cut_when_connected() {
    wait_until 20 connected_to_be_cut $((3 * $1))
    sleep 1
    in_ns switch nft -f - <<'END'
table bridge cut {
  chain passes {
    type filter hook forward priority 10;
    tcp sport { 6500-6599, 7500-7599, 8500-8599 } drop
    tcp dport { 6500-6599, 7500-7599, 8500-8599 } drop
  }
}
END
}
connected_to_be_cut() {
    [[ $(in_ns client ss -Htn state established | awk '{ print $3 }' | grep -cE ':[678]5[0-9]{2}$') -ge $1 ]]
}

# walk GROUP: every course of the group, every way, all at once; what the clients saw in $run_dir/GROUP-WAY.json.
walk() {
    local group=$1 way walkers=()
    oracle_capture "$group"
    for way in "${ways[@]}"; do
        walk_one_way "$group" "$way" &
        walkers+=($!)
    done
    [[ -z ${CUTS:-} ]] || cut_when_connected "$CUTS"
    for way in "${walkers[@]}"; do wait "$way" || fail "the client failed: $(tail -n 3 "$run_dir/log/walk-$group.log")"; done
    oracle_end "$group"
}

walk_one_way() {
    in_ns client "$PYTHON" "$scripts_dir/tools/courses" run "$1" "${address_of[${way_to[$2]}]}" "${way_prefix[$2]}" "${way_ports[$2]}" \
        >"$run_dir/$1-$2.json" 2>>"$run_dir/log/walk-$1.log"
}

# assert_same_courses GROUP: both ends saw the same in every way, so did the client's wire, and the one who had to answered.
# SAW and WIRE take the place of what the clients whose connections were handed off saw, and of the oracle's report.
assert_same_courses() {
    local group=$1 way servers arguments=() seen
    for way in "${ways[@]}"; do
        seen=$run_dir/$group-$way.json
        if [[ $way == handed-off ]]; then seen=${SAW:-$seen}; fi
        servers=$run_dir/a/courses.json,$run_dir/b/courses.json
        [[ $way != plain ]] || servers=$run_dir/c/courses.json
        arguments+=("$way=$seen:$servers:${way_answers[$way]}")
    done
    courses compare "$group" "${WIRE:-$run_dir/oracle-$group.json}" "${arguments[@]}" >"$run_dir/log/compared-$group.log" ||
        fail "not the same: $(head -n 30 "$run_dir/log/compared-$group.log")"
    ok "every way the same: $(tail -n 1 "$run_dir/log/compared-$group.log")"
}

# assert_handed_off GROUP: exactly those that are to be, since `mark`, and nothing fell back.
assert_handed_off() {
    local expected
    expected=$(courses handed-off "$1")
    assert_counts a.handed_off="$expected" b.accepted="$expected"
}

# assert_on_the_wire GROUP COURSE FLAG...: the client's wire showed each of these flags of tshark's in this course, every way: what is
# to be seen did happen.
assert_on_the_wire() {
    local group=$1 name=$2 way port flags flag
    for way in "${ways[@]}"; do
        port=$(grep "\"course\": \"$name\"" "$run_dir/$group-$way.json" | grep -o '"port": [0-9]*')
        flags=$(oracle_flags "$group" "${port#*: }")
        for flag in "${@:3}"; do [[ " $flags" == *" $flag="* ]] || fail "$name, $way: no $flag in [$flags]"; done
    done
    ok "$name: ${*:3}, every way"
}

# can_differ GROUP COURSE FROM TO: negative controls, with one thing changed that the client of COURSE saw, with one thing
# changed that its wire shows, and with another server than the one that has to answer.
can_differ() {
    local group=$1 name=$2 what port
    sed "/\"course\": \"$name\"/s/$3/$4/" "$run_dir/$group-handed-off.json" >"$run_dir/doctored.json"
    if cmp -s "$run_dir/$group-handed-off.json" "$run_dir/doctored.json"; then fail "$name has not seen $3"; fi
    SAW=$run_dir/doctored.json must_fail "$name: $3 is $4" assert_same_courses "$group"
    sed "/\"course\": \"$name\"/s/\"by\": \"b\"/\"by\": \"a\"/" "$run_dir/$group-handed-off.json" >"$run_dir/doctored.json"
    SAW=$run_dir/doctored.json must_fail "$name: a answers" assert_same_courses "$group"
    port=$(grep "\"course\": \"$name\"" "$run_dir/$group-handed-off.json" | grep -o '"port": [0-9]*')
    for what in repeated windows checksum timestamp reset "repeated everywhere"; do
        [[ $what != *everywhere || $(courses handed-off "$group") -gt 5 ]] || continue
        courses doctor "$run_dir/oracle-$group.json" "${port#*: }" "$what" >"$run_dir/doctored.json"
        WIRE=$run_dir/doctored.json must_fail "$name: $what" assert_same_courses "$group"
    done
    must_fail "one less was handed off" assert_counts a.handed_off=$(($(courses handed-off "$group") - 1)) b.accepted="$(courses handed-off "$group")"
}

# --- nothing remains ----------------------------------------------------------------------------------------------

# sockets_of NODE...: of the kernels, on port 80, in any state but LISTEN; "state count" a line. TIME-WAIT is what has to
# remain of a connection that a server closed first.
sockets_of() {
    local node
    for node in "$@"; do in_ns "$node" ss -Htan '( sport = :80 or dport = :80 )'; done |
        awk '$1 != "LISTEN" { count[$1]++ } END { for (state in count) print state, count[state] }' | sort
}

nothing_open() { [[ -z $(sockets_of a b c client | sed '/^TIME-WAIT /d') ]]; }

# guards_of NODE: entries that keep its kernel from answering for what it has given away.
guards_of() { in_ns "$1" nft -j list ruleset | "$PYTHON" -c '
import json, sys
sets = [item["set"] for item in json.load(sys.stdin)["nftables"] if "set" in item]
print(sum(len(one.get("elem", [])) for one in sets if "guard" in one["name"]))'; }

# assert_nothing_remains: within REMAINS_FOR seconds (5).
assert_nothing_remains() {
    wait_until 5 nothing_open
    wait_until "${REMAINS_FOR:-5}" tables_empty
    local node
    for node in a b; do
        assert_eq "flows and guards that $node remembers" "0 0" "$(baton_ask "$node" flows --json | grep -c '"role"' || true) $(guards_of "$node")"
        assert_eq "octets of first flights that $node holds" 0 "$(stat_of "$node" first_flight_bytes)"
    done
    ok "nothing but TIME-WAIT is left in any kernel: $(sockets_of a b c | xargs)"
}
