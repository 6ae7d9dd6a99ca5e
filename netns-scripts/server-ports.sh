#!/usr/bin/env bash
# Applications that take handed-off connections on other ports than clients connect to, and a server that no client ever
# connects to. Whoever answers, and on whichever port, the client knows one address and one port: its front-end's. An
# application that listens where handed-off connections cannot arrive is told of, and others answer instead.
#
#     client ---> a:80, a:8000   nginx on a: 80, 8000
#            \--> b:80           nginx on b: 80 for its own clients, 8080 for handed-off connections
#                 c              nginx on c: 8081; no front-end address
#
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# listen NODE WHERE...: what nginx there listens on, from its next start: a port stands for both wildcard addresses.
declare -A listens=() both=()
listen() {
    local node=$1
    shift
    local where
    listens[$node]=
    for where in "$@"; do
        listens[$node]+="listen $where; "
        [[ $where == *:* ]] || listens[$node]+="listen [::]:$where; "
    done
}
usual=$(declare -f write_nginx_configuration)
eval "usual_nginx_configuration ${usual#write_nginx_configuration}"
write_nginx_configuration() {
    usual_nginx_configuration "$@"
    # shellcheck disable=SC2016 # nginx's own variable
    sed -i -e '/^ *listen \[::\]:80/d' -e "s/^ *listen 80 .*/    ${listens[$1]} add_header X-Port \$server_port always;/" "$run_dir/$1/nginx.conf"
}
restart_nginx() {
    stop_nginx "$1"
    start_nginx "$1"
}

# write_ports_cluster: the nodes of the usual file, and a service with these ports.
write_ports_cluster() {
    write_cluster
    sed -i '/^services:/,$d' "$run_dir/cluster.yaml"
    cat >>"$run_dir/cluster.yaml" <<YAML
services:
  web:
    frontends: { a: ["${host_of[a]}:80", "${host_of[a]}:8000"], b: "${host_of[b]}:80" }
    servers: { a: { port: 80 }, b: { port: 8080 }, c: { port: 8081 } }
    rules:$default_rules
    default: local
YAML
}

# get NODE PORT PATH [CURL OPTION...]: one request to a port of a server.
get() {
    local node=$1 port=$2
    shift 2
    FETCH_URL=http://${host_of[$node]}:$port fetch client "$node" "$@"
    answered_on=$(header X-Port)
}
assert_answered_on() {
    assert_answered "$1"
    assert_eq "on port" "$2" "$answered_on"
}
# ask NODE PORT PATH [OPTION...]: the same by tools/one_request.py, which can end a connection in other ways.
ask() {
    local node=$1
    shift
    read -r status answered_by answered_on octets ending local_port < <(tool client one_request "${address_of[$node]}" "$@")
}
hash_of() { sha256sum | cut -d ' ' -f 1; }

topology_up a b c
make_file large 20M
make_file picture 100K
make_file page 4K
listen a 80 8000
listen b 80 8080
listen c 8081
start_applications
write_ports_cluster
start_cluster
large=$(hash_of <"$run_dir/www/large")

# nothing_but_front_ends NODE: of what NODE sends to the client with any payload, all comes from front-end ports.
nothing_but_front_ends() {
    local port
    for port in 8080 8081; do
        assert_eq "payload from port $port of $1 on the wire" 0 "$(wire payload "$1" "$client_address" "$port")"
    done
}

say "every front-end port, every server, each on its port"
for front_end in a:80 a:8000 b:80; do
    for content in images:b:8080 videos:c:8081; do
        IFS=: read -r path owner port <<<"$content"
        mark
        get "${front_end%:*}" "${front_end#*:}" "/$path/picture"
        assert_same_file "/$path/picture from $front_end" picture
        if [[ ${front_end%:*} == "$owner" ]]; then
            assert_answered_on "$owner" "${front_end#*:}"
            assert_counts
        else
            assert_answered_on "$owner" "$port"
            assert_counts "${front_end%:*}.handed_off=1" "$owner.accepted=1"
        fi
    done
    mark
    get "${front_end%:*}" "${front_end#*:}" /elsewhere/picture
    assert_answered_on "${front_end%:*}" "${front_end#*:}"
    assert_counts
done
must_fail "it was the front-end's own" assert_answered_on b 8080
must_fail "nothing was handed off" assert_counts b.handed_off=1 c.accepted=1

say "20 MB down from c, which has no front-end, and up to b"
mark
get a 8000 /videos/large
assert_answered_on c 8081
assert_eq "hash of what was received" "$large" "$(hash_of <"$body")"
get a 80 /images/upload -X POST -T "$run_dir/www/large" -H 'Expect:'
assert_answered_on b 8080
assert_eq "hash of what arrived" "$large" "$(head -c 64 "$body")"
assert_counts a.handed_off=2 b.accepted=1 c.accepted=1
printf x >>"$body"
must_fail "one octet too many" assert_eq "hash" "$large" "$(hash_of <"$body")"

say "one client port, both ports of the front-end at once"
mark
for port in 80 8000; do
    spawn client "$run_dir/log/both-$port.log" "$PYTHON" "$scripts_dir/tools/one_request.py" "${address_of[a]}" "$port" \
        /images/large --from 7000
    both[$port]=$spawned
done
wait_until 20 process_gone "${both[80]}"
wait_until 20 process_gone "${both[8000]}"
for port in 80 8000; do
    assert_eq "answer through port $port" "200 b 8080 20971520 closed 7000" "$(<"$run_dir/log/both-$port.log")"
done
assert_counts a.handed_off=2 b.accepted=2

say "the ends of a connection"
mark
# What nginx can send at once: it gives up the rest of a longer answer when a client closes its direction.
ask a 8000 /videos/page --end half
assert_eq "the client closed first, and got" "200 c 8081 4096 closed" "$status $answered_by $answered_on $octets $ending"
ask a 80 /images/large --end reset
assert_eq "the client reset, having read some of" "200 b 8080 reset" "$status $answered_by $answered_on $ending"
assert_counts a.handed_off=2 b.accepted=1 c.accepted=1
wait_until 5 gone_from b "$local_port"
no_connection_lives() {
    [[ $(stat_of a connections_handed_off) == 0 && $(stat_of b connections_back_end) == 0 && $(stat_of c connections_back_end) == 0 ]]
}
wait_until 5 no_connection_lives
ok "all three servers know that these connections are over"

say "a narrow route from c to the client: the error names a's port, and is understood on c's"
mark
ip -n "$(namespace c)" route add "$client_address" dev eth0 mtu lock 1300
ask a 8000 /videos/large
assert_eq "whole" "200 c 8081 20971520 closed" "$status $answered_by $answered_on $octets $ending"
ip -n "$(namespace c)" route del "$client_address"
assert_counts a.handed_off=1 c.accepted=1

say "a client silent for so long that it is parked is served on the port for handed-off connections, here too"
mark
ask b 80 /elsewhere/picture --silence 3
assert_eq "answer" "200 b 8080 102400 closed" "$status $answered_by $answered_on $octets $ending"
assert_eq "replays to self" 1 "$(stat_of b replays_to_self_total)"
assert_counts

say "while it lasts, both sides show it"
spawn client "$run_dir/log/slow.log" curl -sS --noproxy '*' --limit-rate 1M -o /dev/null "http://${host_of[a]}:8000/images/large"
slow=$spawned
served_at() { baton_ask b flows | grep -F " ${host_of[a]}:8000 " | grep -qE ' back-end .* (198\.18\.[0-9.]+|\[fd00:ba70::[0-9a-f]+\]):8080 '; }
wait_until 5 served_at
baton_ask a flows | grep -F " ${host_of[a]}:8000 " | grep -q " front-end .* forward .* b " || fail "$(baton_ask a flows)"
ok "flows on a: the front-end's port; on b: also the socket's"
kill "$slow"
for node in a b c; do nothing_but_front_ends "$node"; done
assert_eq "resets from c" 0 "$(wire resets c)"

say "c itself is no front-end: who connects to it talks to its own kernel, and baton knows nothing of it"
get c 8081 /elsewhere/picture
assert_answered_on c 8081
assert_eq "connections that c's baton has seen begin" 0 "$(stat_of c syns_total)"
must_fail "this answer came from port 8081" nothing_but_front_ends c

say "an application on one address only"
# told NODE LEVEL TEXT: what baton there has written at this level since the last `mark_log`.
mark_log() { log_mark=$(stat -c %s "$run_dir/log/baton-$1.log"); }
told() { tail -c "+$((log_mark + 1))" "$run_dir/log/baton-$1.log" | grep "$2" | grep -qF "$3"; }
takes_none="application_port=8080: the application listens only on ${host_of[b]}:8080, so connections handed to this node are refused"
mark_log b
listen b 80 "${host_of[b]}:8080"
restart_nginx b
wait_until 5 told b WARN "$takes_none"
ok "the log of b says so"
shown() { baton_ask b status | grep -qF "port 8080: takes no handoffs: the application listens only on ${host_of[b]}:8080"; }
wait_until 2 shown
ok "and so does its status"
checked() { in_ns "$1" "$BATON" check --node "$1" "$run_dir/cluster.yaml" 2>&1; }
checked b | grep -qF "warning: node b: service=web $takes_none" || fail "$(checked b)"
ok "and baton check there"
must_fail "nothing is wrong with a" grep -qF "warning: node a" <<<"$(checked a)"
mark
get a 80 /images/picture
assert_answered_on a 80
assert_same_file "the local answer" picture
assert_counts a.fallback.refused_application_down=1
must_fail "b refused" assert_answered_on b 8080

say "told once, and again when it changes"
sleep 2.2
assert_eq "lines about it" 1 "$(tail -c "+$((log_mark + 1))" "$run_dir/log/baton-b.log" | grep -cF "$takes_none")"
listen b 80 8080
mark_log b
restart_nginx b
wait_until 5 told b INFO "application_port=8080: an application listens now"
mark
get a 80 /images/picture
assert_answered_on b 8080
assert_counts a.handed_off=1 b.accepted=1
must_fail "it is back" shown
must_fail "it is back" grep -qF "warning: node b: service=web" <<<"$(checked b)"

say "a firewall on c that forwards nothing: no answer could leave, so baton does not start"
stop_baton c
in_ns c nft -f - <<'NFT'
table inet site {
  chain forward { type filter hook forward priority 0; policy drop; }
}
NFT
launch_baton c
wait_until 10 process_gone "$(baton_pid c)"
grep -qF "this host drops packets from bt0 to a client of ${host_of[a]}:80" "$run_dir/log/baton-c.log" || fail "$(tail -n 3 "$run_dir/log/baton-c.log")"
ok "and says why"
in_ns c nft delete table inet site
start_baton c
wait_for_peers
mark
get a 80 /videos/picture
assert_answered_on c 8081
assert_counts a.handed_off=1 c.accepted=1

scenario_end
