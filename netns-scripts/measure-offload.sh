#!/usr/bin/env bash
# No test: how fast a handed-off download is with super-segments and without. Rounds take turns, so that what else the
# machine does meets both; the medians are printed.
#
#   netns-scripts/measure-offload.sh [ROUNDS [SIZE]]      3 rounds of 1G
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
rounds=${1:-3} size=${2:-1G}

topology_up a b
make_file large "$size"
start_nginx a
start_nginx b
export BATON_RUST_LOG=baton=info

# one_download MODE: appends seconds, and the processor seconds of b's baton.
one_download() {
    local mode=$1 before=0 after=0
    [[ $mode == none ]] || before=$(stat_of b process_cpu_seconds_total)
    local url="http://${host_of[a]}/images/large" octets seconds
    [[ $mode != none ]] || url="http://${host_of[b]}/elsewhere/large"
    # Not `fetch`: what the client does with the octets shall cost nothing.
    read -r octets seconds < <(in_ns client curl -sS --max-time 300 -D "$run_dir/fetched.headers" -o /dev/null \
        -w '%{size_download} %{time_total}\n' "$url")
    assert_eq "answered by" b "$(header X-Server)"
    assert_eq "octets" "$(stat -c %s "$run_dir/www/large")" "$octets"
    [[ $mode == none ]] || after=$(stat_of b process_cpu_seconds_total)
    echo "$octets $seconds $before $after" >>"$run_dir/times-$mode"
}

for ((round = 0; round < rounds; round++)); do
    for mode in auto off; do
        NO_VIDEOS=yes RUN_OPTIONS="--offload $mode" start_cluster
        one_download "$mode"
        for node in a b; do stop_baton "$node"; done
    done
    one_download none
done

for mode in auto off none; do
    awk '{ printf "%.3f %.2f\n", $1 / $2 / 1e9, $4 - $3 }' "$run_dir/times-$mode" | sort -n | awk -v mode="$mode" '
        { speed[NR] = $1; cpu[NR] = $2 }
        END {
            name["auto"] = "handed off, --offload auto"; name["off"] = "handed off, --offload off"; name["none"] = "no baton"
            printf "%-28s median %.2f GB/s (%.2f to %.2f)", name[mode], speed[int((NR + 1) / 2)], speed[1], speed[NR]
            if (mode != "none") printf ", processor of baton at the back-end %.2f s", cpu[int((NR + 1) / 2)]
            print ""
        }'
done
scenario_end
