#!/usr/bin/env bash
# The connection log and the metrics: one line for every connection, with who served it, how long that took and how many
# octets went each way; and numbers that Prometheus' own checker accepts and that agree with what was done. Neither a pipe
# that nobody reads nor a scraper that hangs holds anything up.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# shellcheck source=netns-scripts/lib/install.sh
. "$scripts_dir/lib/install.sh"
install_missing promtool:prometheus jq:jq
topology_up a b
make_file picture 300K
start_applications
NO_VIDEOS=yes write_cluster
log=$run_dir/a/connections.jsonl
client_host=${host_of[client]:-$client_address}
start() { RUN_OPTIONS="--metrics 127.0.0.1:9477 --connection-log $log" start_baton a; }

# scrape [CURL OPTION...]: what is served.
scrape() { in_ns a curl -sS --noproxy '*' --max-time 5 "$@" http://127.0.0.1:9477/metrics; }
# metric NAME: its value, or nothing.
metric() { scrape | awk -v name="$1" '$1 == name { print $2 }'; }
# logged FILTER: what jq says of the last line.
logged() { tail -n 1 "$log" | jq -r "$1"; }
lines() { wc -l <"$log"; }
has_lines() { [[ $(lines) -ge $1 ]]; }
assert_logged() { assert_eq "the last line's $1" "$2" "$(logged "$1")"; }

say "an address that is taken, and a log that cannot be opened"
refused() {
    local outcome=0
    in_ns a "$BATON" run --node a --key "$run_dir/a/key" --socket "$run_dir/a/baton.sock" "$@" "$run_dir/cluster.yaml" \
        >"$run_dir/refused" 2>&1 || outcome=$?
    assert_eq "exit status" 3 "$outcome"
}
spawn a "$run_dir/log/taken.log" "$PYTHON" "$scripts_dir/tools/relay.py" 9477 "${host_of[b]}:80"
taken=$spawned
wait_until 5 listening a 9477
refused --metrics 127.0.0.1:9477
grep -q 'something else listens there; choose another port with --metrics' "$run_dir/refused" || fail "$(<"$run_dir/refused")"
kill "$taken"
wait_until 5 process_gone "$taken"
refused --metrics 0.0.0.0:80
grep -q 'is a front-end address; choose another port' "$run_dir/refused" || fail "$(<"$run_dir/refused")"
refused --connection-log "$run_dir/missing/log"
grep -q 'choose another place with --connection-log' "$run_dir/refused" || fail "$(<"$run_dir/refused")"
ok "each is refused with a remedy"

start
start_baton b
wait_for_peers

say "a handed-off download"
mark
fetch client a "/images/picture?token=1"
assert_answered b
assert_counts a.handed_off=1 b.accepted=1
wait_until 5 has_lines 1
assert_logged .client "$client_host:$local_port"
assert_logged .frontend "${host_of[a]}:80"
assert_logged '[.node, .service, .rule, .server, .outcome, .end] | join(" ")' "a web images b handed_off closed"
assert_logged '.request | [.protocol, .method, .host, .path] | join(" ")' "http GET ${address_of[a]} /images/picture"
headers=$(wc -c <"$run_dir/fetched.headers")
assert_logged .bytes_to_client $((300 * 1024 + headers))
assert_at_least "octets of the request" 60 "$(logged .bytes_from_client)"
assert_logged '(.decide_ms <= .handoff_ms) and (.handoff_ms <= .first_byte_ms) and (.first_byte_ms <= .duration_ms)' true
assert_logged '.fallbacks' null

say "a local one, one that fell back, and one that its client gave up"
fetch client a /elsewhere/picture
assert_answered a
assert_logged '[.rule, .server, .outcome, .end, .bytes_to_client] | map(tostring) | join(" ")' "default a local released null"
stop_baton b
fetch client a /images/picture
assert_answered a
assert_logged '[.rule, .server, .outcome, .fallbacks[0].node, .fallbacks[0].reason] | join(" ")' "images a local b peer_down"
before=$(lines)
in_ns client "$PYTHON" - "${address_of[a]}" <<'END'
import socket, struct, sys, time
client = socket.create_connection((sys.argv[1], 80))
client.sendall(b"GET /images/pic")
time.sleep(0.3)
client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
client.close()
END
wait_until 5 has_lines $((before + 1))
assert_logged '[.outcome, .end, (.rule | tostring), (.server | tostring)] | join(" ")' "abandoned reset_by_client null null"
must_fail "that one had no server" assert_logged .server a
assert_eq "lines" 4 "$(lines)"

say "the metrics agree"
scrape >"$run_dir/metrics"
promtool check metrics <"$run_dir/metrics" >"$run_dir/log/promtool.log" 2>&1 || fail "promtool: $(<"$run_dir/log/promtool.log")"
ok "promtool accepts them: $(grep -vc '^#' "$run_dir/metrics") numbers"
sed 's/^# TYPE baton_syns_total counter/# TYPE baton_syns_total cunter/' "$run_dir/metrics" >"$run_dir/wrong"
must_fail "no such type" promtool check metrics <"$run_dir/wrong"
names() { sed 's/[{ ].*//' | sort -u; }
assert_eq "names that only one of stats and metrics has" '' \
    "$(comm -3 <(baton_ask a stats | names) <(grep -v '^#' "$run_dir/metrics" | sed 's/^baton_//' | names))"
assert_eq "connections b served" 1 "$(metric 'baton_outcomes_total{service="web",rule="images",node="b",outcome="handed_off"}')"
assert_eq "connections a served by default" 1 "$(metric 'baton_outcomes_total{service="web",rule="default",node="a",outcome="local"}')"
assert_eq "connections a served instead of b" 1 "$(metric 'baton_outcomes_total{service="web",rule="images",node="a",outcome="local"}')"
assert_eq "connections given up" 1 "$(metric 'baton_outcomes_total{service="web",rule="",node="",outcome="abandoned"}')"
assert_eq "handoffs timed" 1 "$(metric baton_handoff_seconds_count)"
assert_eq "handoffs timed, in all buckets" 1 "$(metric 'baton_handoff_seconds_bucket{le="+Inf"}')"
assert_eq "decisions timed" 3 "$(metric baton_decision_seconds_count)"
assert_eq "b is down" 0 "$(metric 'baton_peer_up{peer="b"}')"
assert_eq "lines of the log" 4 "$(metric 'baton_connection_log_lines_total{outcome="written"}')"
assert_eq "fall-backs" "$(baton_ask a stats | awk '$1 == "fallbacks_total{reason=\"peer_down\"}" { print $2 }')" \
    "$(metric 'baton_fallbacks_total{reason="peer_down"}')"
must_fail "two were" assert_eq "handoffs timed" 2 "$(metric baton_handoff_seconds_count)"
assert_eq "status of another path" 404 "$(in_ns a curl -sS --noproxy '*' -o "$run_dir/refused" -w '%{http_code}' http://127.0.0.1:9477/)"
assert_eq "octets of HEAD" 0 "$(scrape -I | sed '1,/^\r$/d' | wc -c)"

say "a renamed log is opened again on SIGUSR1"
mv "$log" "$log.1"
fetch client a /elsewhere/picture
kill -USR1 "$(baton_pid a)"
wait_until 5 test -e "$log"
fetch client a /elsewhere/picture
wait_until 5 has_lines 1
assert_eq "lines before and after" "5 1" "$(wc -l <"$log.1") $(lines)"

say "a pipe that nobody reads, and scrapers that hang"
stop_baton a
rm "$log"
mkfifo "$log"
start
in_ns a timeout 30 "$PYTHON" - <<'END' &
import socket, time
hanging = [socket.create_connection(("127.0.0.1", 9477)) for _ in range(20)]
for client in hanging:
    try:
        client.sendall(b"GET /metrics HT")
    except OSError:
        pass
time.sleep(20)
END
hanging=$!
for _ in {1..200}; do
    fetch client a /elsewhere/picture
    [[ $status == 200 && $answered_by == a ]] || fail "status $status, answered by $answered_by"
done
ok "200 requests were answered"
assert_eq "lines written" 200 "$(baton_ask a stats | awk '$1 == "connection_log_lines_total{outcome=\"written\"}" { print $2 }')"
scraped_again() { [[ $(metric baton_peers) == 1 ]]; }
wait_until 10 scraped_again
ok "the hanging scrapers were dropped, and metrics are served again"
kill "$hanging" 2>/dev/null || true
timeout 5 cat "$log" >"$run_dir/read" &
reader=$!
fetch client a /elsewhere/picture
wait "$reader" || true
assert_eq "lines in the pipe that are JSON" 201 "$(jq -c . "$run_dir/read" | wc -l)"

scenario_end
