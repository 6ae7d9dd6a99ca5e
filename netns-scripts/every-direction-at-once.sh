#!/usr/bin/env bash
# 200,000 connections in one run: three servers, each a front-end and a back-end for both others at the same time, over
# IPv4 and IPv6, with answers from 200 octets to 1 MB. Not one error, exact counts, empty tables. Then 1,000 handed-off
# connections that stay open and say nothing: they cost nothing.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

: "${CONNECTIONS:=200000}" "${IDLE_CONNECTIONS:=1000}" "${IDLE_SECONDS:=30}"
# Of one processor, in the idle part, by any one of the processes.
idle_percent_max=0.5

topology_up a b c
make_file tiny 200
make_file page 6K
make_file picture 64K
make_file film 1M
start_applications
# A line per packet or state change would be a test of the log.
export BATON_RUST_LOG=baton=info
RULES='
      - { name: papers, when: { path: "/papers/*" }, send_to: a }
      - { name: images, when: { path: "/images/*" }, send_to: b }
      - { name: videos, when: { path: "/videos/*" }, send_to: c }' \
    LIMITS='{ linger: 5s }' write_cluster
start_cluster

# expectations FRONT-END: ten requests, twenty times over, and who answers them: three for each server; the tenth is for
# nobody, so it stays where it arrives. Most answers are small; of the last ten one is not.
expectations() {
    local content rounds
    for ((rounds = 1; rounds <= 20; rounds++)); do
        for content in papers/tiny=a images/page=b videos/tiny=c papers/page=a images/tiny=b videos/page=c papers/tiny=a images/page=b \
            videos/picture=c elsewhere/page="$1"; do
            [[ $rounds -lt 20 ]] || content=${content/picture/film}
            printf -- '--expect\n/%s=%s\n' "$content" "$run_dir/www/$(basename "${content%=*}")"
        done
    done
}

# processor_time NODE: nanoseconds that its baton has spent on a processor.
processor_time() { cut -d ' ' -f 1 "/proc/$(baton_pid "$1")/schedstat"; }

# assert_idle SECONDS: none of the processes takes more than it may in this time.
assert_idle() {
    local node before=() after index=0
    for node in "${nodes[@]}"; do before+=("$(processor_time "$node")"); done
    sleep "$1"
    for node in "${nodes[@]}"; do
        after=$(processor_time "$node")
        awk -v name="$node" -v used=$((after - before[index])) -v seconds="$1" -v most="$idle_percent_max" 'BEGIN {
            percent = used / seconds / 1e7
            printf "        %s: %.3f %% of one processor in %d s\n", name, percent, seconds
            exit percent > most }' || fail "$node is not idle"
        index=$((index + 1))
    done
    ok "idle: each takes at most $idle_percent_max % of one processor"
}

share=$(((CONNECTIONS / 6 + 9) / 10 * 10))
say "$((share * 6)) connections: six front-end addresses, $share each, 20 at a time"
mark
running=()
for front_end in a b c; do
    for family in 4 6; do
        mapfile -t wanted < <(expectations "$front_end")
        tool client load close "${address_of[$front_end$family]}" --connections "$share" --concurrency 20 "${wanted[@]}" \
            >"$run_dir/log/load-$front_end$family.json" &
        running+=("$!:$front_end$family")
    done
done
for one in "${running[@]}"; do
    wait "${one%%:*}" || fail "errors: $(<"$run_dir/log/load-${one#*:}.json")"
    say "        ${one#*:}: $(<"$run_dir/log/load-${one#*:}.json")"
done
# Six of ten are for one of the others, at each of two addresses of each front-end.
handed_off=$((share * 6 * 2 / 10))
assert_counts {a,b,c}.handed_off=$handed_off {a,b,c}.accepted=$handed_off
wait_until 60 tables_empty
ok "tables empty"

say "$IDLE_CONNECTIONS open handed-off connections"
mark
tool client load hold "${address_of[a]}" --connections "$IDLE_CONNECTIONS" --expect "/images/tiny=b=$run_dir/www/tiny" \
    --ready "$run_dir/all-are-open" --until "$run_dir/enough" >"$run_dir/log/load-idle.json" &
holding=$!
wait_until 60 test -e "$run_dir/all-are-open"
assert_counts a.handed_off="$IDLE_CONNECTIONS" b.accepted="$IDLE_CONNECTIONS"
wait_until 10 test "$(stat_of a connections_lingering)" -eq 0
# What the connections cost when they were opened is not idleness.
sleep 1
assert_idle "$IDLE_SECONDS"
assert_eq "open connections" "$IDLE_CONNECTIONS" "$(stat_of b connections_back_end)"
touch "$run_dir/enough"
wait "$holding" || fail "errors: $(<"$run_dir/log/load-idle.json")"
assert_eq "the connections still work" "$((IDLE_CONNECTIONS * 2))" "$("$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["answers"])' <"$run_dir/log/load-idle.json")"

say "the same checks, fed with what is wrong"
mark
must_fail "b answers what c should" tool client load close "${address_of[a6]}" --connections 10 --expect "/images/tiny=c=$run_dir/www/tiny"
must_fail "another body" tool client load close "${address_of[a6]}" --connections 10 --expect "/images/tiny=b=$run_dir/www/page"
must_fail "b accepted twenty" assert_counts a.handed_off=10 b.accepted=10
tool client load close "${address_of[a]}" --connections 6000 --expect "/images/tiny=b" >"$run_dir/log/load-busy.json" &
busy=$!
must_fail "they are busy" assert_idle 1
wait "$busy"

scenario_end
