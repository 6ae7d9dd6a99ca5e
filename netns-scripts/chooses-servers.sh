#!/usr/bin/env bash
# Which of three servers answers: the same one for a cookie from wherever it is asked, each in turn by exact counts, the
# one with the fewest connections, nobody (a reset), the local one while a service only observes, and another one for a
# part of the clients. Who answers is what the servers themselves say.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b c
make_file page 1K
for server in a b; do
    mkdir -p "$run_dir/$server/servers"
    cat >"$run_dir/$server/servers/watched.conf" <<END
server { listen 8080; listen [::]:8080; root $run_dir/www; add_header X-Server $server always;
  location ~ ^/[a-z]+/ { rewrite ^/[a-z]+/(.*)\$ /\$1 break; } }
END
done
start_applications
RULES='
      - { name: sessions, when: { path: "/session/*" }, send_to: { nodes: [a, b, c], by: "hash(cookie:session)" } }
      - { name: turns, when: { path: "/turns/*" }, send_to: { nodes: { a: 1, b: 2, c: 1 }, by: round_robin } }
      - { name: fewest, when: { path: "/fewest/*" }, send_to: { nodes: [b, c], by: least_connections } }
      - { name: only c, when: { path: "/only/*" }, send_to: { nodes: [b, c], by: "hash(path)", otherwise: reset } }
      - { name: new, when: { path: "/new/*" }, canary: { percent: 30, of: "cookie:session" }, send_to: c }
      - { name: old, when: { path: "/new/*" }, send_to: b }'
SERVICES="  watched:
    frontends: { a: \"${host_of[a]}:8080\", b: \"${host_of[b]}:8080\" }
    servers: { a: { port: 80 }, b: { port: 80 } }
    mode: observe
    default: { nodes: [a, b], by: round_robin }"
write_cluster
start_cluster

# answer_of SERVER PATH [CURL-OPTION...]: who answers a new connection, in one word; a reset is `reset`.
answer_of() {
    local server=$1 path=$2 port=80
    shift 2
    [[ $path != /watched/* ]] || port=8080
    local status=0 said
    said=$(in_ns client curl -sS --max-time 5 -o /dev/null -D - -w 'status %{http_code}\n' "$@" \
        "http://${host_of[$server]}:$port$path" 2>&1) || status=$?
    case $status in
    0) awk 'tolower($1) == "x-server:" { who = $2 } $1 == "status" && $2 != 200 { who = "status-" $2 } END { print who }' \
        <<<"${said//$'\r'/}" ;;
    56) grep -q 'reset by peer' <<<"$said" && echo reset ;;
    *) echo "curl-$status" ;;
    esac
}

# answers COUNT SERVER PATH [CURL-OPTION...]: who answered so many connections, one after the other: `a=1 b=2`.
answers() {
    local count=$1 number
    shift
    for ((number = 0; number < count; number++)); do answer_of "$@"; done | sort | uniq -c |
        awk '{ print $2 "=" $1 }' | xargs
}

# explained SERVER SESSION: what `baton explain` says without a connection.
explained() {
    "$BATON" explain "$run_dir/cluster.yaml" --node "$1" --service web --http 'GET /session/page' \
        --header "Cookie: session=$2" --json | "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["answered_by"])'
}

two_are_left() { [[ $(stat_of a connections_handed_off) == 2 ]]; }

say "a cookie decides, whichever server is asked"
mark
everybody=
for session in 1 2 3 8; do
    want=$(explained a "$session")
    everybody+=" $want"
    for server in a b c; do
        assert_eq "session $session, asked of $server" "$want" "$(answer_of "$server" /session/page -b "session=$session")"
        assert_eq "session $session, explained at $server" "$want" "$(explained "$server" "$session")"
    done
done
assert_eq "servers that have a session" "a b c" "$(xargs -n 1 <<<"$everybody" | sort -u | xargs)"
# Each session was asked for once at each server: two of three were handed off.
handed_off=$(counts_since_mark | tr ' ' '\n' | awk -F = '/handed_off/ { sum += $2 } END { print sum }')
assert_eq "handed off" 8 "$handed_off"

say "each in turn, by weight"
mark
assert_eq "asked of a" "a=2 b=4 c=2" "$(answers 8 a /turns/page)"
assert_counts a.handed_off=6 b.accepted=4 c.accepted=2
must_fail "other turns" assert_counts a.handed_off=6 b.accepted=2 c.accepted=4
assert_eq "counted for b" 4 "$(stat_of a 'chosen_total{service="web",rule="turns",node="b"}')"

say "the one with the fewest connections"
# Three connections stay open at whichever was first.
spawn client "$run_dir/log/holds.log" "$PYTHON" "$scripts_dir/tools/keeps_open.py" "${address_of[a]}" 80 /fewest/page 4
holder=$spawned
wait_until 10 grep -q open "$run_dir/log/holds.log"
assert_eq "of four that stay open" "X-Server: b 2 X-Server: c 2" \
    "$(grep X-Server "$run_dir/log/holds.log" | sort | uniq -c | awk '{ print $2, $3, $1 }' | xargs)"
assert_eq "the next two, one at a time" "b=1 c=1" "$(answers 2 a /fewest/page)"
# Those of b are closed: it has none, c has two.
kill -USR1 "$holder"
wait_until 10 grep -q closed "$run_dir/log/holds.log"
# (What b said last of how many it has is up to half a second old; and each of these is over at a before the next one begins: what is
# being closed still counts.)
sleep 1
for _ in {1..4}; do
    wait_until 10 two_are_left
    assert_eq "when those of b are over" "b=1" "$(answers 1 a /fewest/page)"
done
kill "$holder"
wait_until 5 process_gone "$holder"

say "nobody else has it"
path=/only/page
owner=$("$BATON" explain "$run_dir/cluster.yaml" --node a --service web --http "GET $path" --json |
    "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["answered_by"])')
assert_eq "its server answers" "$owner" "$(answer_of a "$path")"
stop_nginx "$owner"
mark
assert_eq "without its server" reset "$(answer_of a "$path")"
assert_counts a.fallback.refused_application_down=1
must_fail "it was handed off" assert_counts a.handed_off=1
assert_eq "resets by policy" 1 "$(stat_of a resets_by_policy_total)"
assert_eq "half-open connections left at a" 0 "$(in_ns a ss -Htn state syn-recv | wc -l)"
start_nginx "$owner"
assert_eq "with it again" "$owner" "$(answer_of a "$path")"

say "only observed"
mark
assert_eq "asked of a" "a=6" "$(answers 6 a /watched/page)"
assert_counts
assert_eq "that would have been handed to b" 3 "$(stat_of a 'observed_total{service="watched",rule="default",node="b"}')"

say "a part of the clients"
mark
new=0
for session in 1 2 3 4 5 6 7 8 9 10; do
    first=$(answer_of a /new/page -b "session=$session")
    assert_eq "session $session, asked of b" "$first" "$(answer_of b /new/page -b "session=$session")"
    [[ $first != c ]] || new=$((new + 1))
done
assert_eq "without a session" "b=2" "$(answers 2 a /new/page)"
ok "of ten sessions $new are in"
((new > 0 && new < 10)) || fail "of ten sessions $new are in"

scenario_end
