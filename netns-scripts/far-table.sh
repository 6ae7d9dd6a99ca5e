#!/usr/bin/env bash
# Prints the table of docs/operations.md: how long an answer takes to a client that is far away and takes its time, without
# baton, answered locally, and handed off; and how many segments the servers repeated, on a wire that loses nothing.
#
#   far-table.sh [ROUND_TRIPS [WAITS [SIZES]]]     milliseconds, seconds, and 200K or 5M; each a quoted list
#
# Medians of five (TIMES). No assertion: slow-and-far.sh has those.

# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/far.sh
. "$scripts_dir/lib/far.sh"
round_trips=${1:-20 100 300} waits=${2:-0 1 5} sizes=${3:-200K 5M} times=${TIMES:-5}

topology_up a b
for size in $sizes; do make_file "$size" "$size"; done
start_applications
# Each connection is its client's first: what a kernel remembers of former ones would help the later rows.
for node in a b; do in_ns "$node" sh -c 'echo 1 >/proc/sys/net/ipv4/tcp_no_metrics_save'; done

# measure KIND PATH: all waits and sizes at this distance.
measure() {
    local wait size
    for size in $sizes; do
        for wait in $waits; do
            tool client slow "${address_of[a]}" "$2/$size" --wait "$wait" --times "$times" --apart 1.7 |
                sed "s|^|$1 $round_trip $wait $size |" >>"$run_dir/measured"
        done
    done
}

# measure_all KIND PATH...
measure_all() {
    for round_trip in $round_trips; do
        move_client_away "$round_trip"
        start_capture client 'tcp port 80'
        local pairs=("$@")
        while [[ ${#pairs[@]} -gt 0 ]]; do
            measure "${pairs[0]}" "${pairs[1]}"
            pairs=("${pairs[@]:2}")
        done
        stop_capture client >/dev/null
        "$PYTHON" "$scripts_dir/tools/capture.py" again "$run_dir/capture-client.pcap" | sed "s|^|again $round_trip |" >>"$run_dir/measured"
    done
}

measure_all without /elsewhere
export BATON_RUST_LOG=baton=info
NO_VIDEOS=yes start_cluster
measure_all local /elsewhere handed-off /images
end_shaper
[[ -z ${KEEP_MEASURED:-} ]] || cp "$run_dir/measured" "$KEEP_MEASURED"

"$PYTHON" - "$run_dir/measured" <<'END_OF_PROGRAM'
import collections, json, statistics, sys

seconds, ports, repeated = collections.defaultdict(list), {}, collections.Counter()
again = []
for line in open(sys.argv[1]):
    kind, rest = line.split(" ", 1)
    if kind == "again":
        again.append(rest.split())
        continue
    round_trip, wait, size, answer = rest.split(" ", 3)
    answer = json.loads(answer)
    expected = {"without": "a", "local": "a", "handed-off": "b"}[kind]
    assert answer["answered_by"] == expected, line
    seconds[round_trip, wait, size, kind].append(answer["seconds"])
    ports[round_trip, answer["port"]] = (round_trip, wait, size, kind)
for round_trip, port, who, _, count in again:
    if who == "server" and (round_trip, int(port)) in ports:
        repeated[ports[round_trip, int(port)]] += int(count)
print("| round trip | first byte after | answer | without baton | answered locally | handed off | repeated segments |")
print("|---|---|---|---|---|---|---|")
for (round_trip, wait, size, kind), values in seconds.items():
    if kind != "without":
        continue
    key = (round_trip, wait, size)
    base = statistics.median(values)
    cells = [f"{base:.3f} s"]
    for other in ("local", "handed-off"):
        median = statistics.median(seconds[key + (other,)])
        cells.append(f"{median:.3f} s ({median / base:.2f})")
    counts = " / ".join(str(repeated[key + (kind,)]) for kind in ("without", "local", "handed-off"))
    print(f"| {round_trip} ms | {wait} s | {size}B | " + " | ".join(cells) + f" | {counts} |")
END_OF_PROGRAM
scenario_end
