#!/usr/bin/env bash
# Many seeds of the swarm (tests/sim/swarm), in batches. What has been run is remembered: stopped and started again, it
# goes on with the next batch. Prints one line for each batch, and a summary.
#
#   tests/sim/batches.sh [SEEDS [SEEDS_PER_BATCH]]      100000 in batches of 5000, unless told otherwise
#
# Batches are remembered for one state of the sources; changed sources begin anew.

set -euo pipefail

project_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$project_dir"
seeds=${1:-100000} size=${2:-5000}
target_dir=${CARGO_TARGET_DIR:-$project_dir/target}
sources=$(find src tests/sim Cargo.toml Cargo.lock -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c 1-16)
state_dir=$target_dir/swarm/$sources
mkdir -p "$state_dir"

cargo test --release --test sim --no-run >"$state_dir/build.log" 2>&1 || { cat "$state_dir/build.log" >&2; exit 1; }

failed=0 run=0
for ((first = 0; first < seeds; first += size)); do
    count=$((seeds - first < size ? seeds - first : size))
    log=$state_dir/$first+$count.log
    if [[ -e $log.passed ]]; then
        printf '%7d +%d: passed before: %s\n' "$first" "$count" "$(grep 'seeds from' "$log" | head -n 1)"
        run=$((run + count))
        continue
    fi
    started=$SECONDS
    if BATON_FIRST_SEED=$first BATON_SEEDS=$count \
        cargo test --release --test sim in_every_world_all_rules_hold -- --nocapture >"$log" 2>&1; then
        touch "$log.passed"
        printf '%7d +%d: passed (%d s): %s\n' "$first" "$count" $((SECONDS - started)) "$(grep 'seeds from' "$log" | head -n 1)"
    else
        failed=$((failed + 1))
        printf '%7d +%d: FAILED (%d s): %s\n' "$first" "$count" $((SECONDS - started)) "$log"
        grep -E '^(seed [0-9]+:|  BATON_SEED)' "$log" || tail -n 5 "$log"
    fi
    run=$((run + count))
done
echo "$run seeds, $failed batches failed (sources $sources)"
[[ $failed -eq 0 ]]
