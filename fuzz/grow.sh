#!/usr/bin/env bash
# Grows the fuzzing corpora, and minimises them:
#
#   fuzz/grow.sh                    every target for ten minutes
#   fuzz/grow.sh TARGET             one of them
#   fuzz/grow.sh TARGET SECONDS     for so long
#
# Needs cargo-fuzz and a nightly toolchain, which nothing else here does; continuous integration only replays what is
# committed (`cargo test --test fuzz_corpora`). Exits 1 when something was found: the input is in fuzz/artifacts/TARGET/.
# `NICE` (15) is how nice it is to others on this machine.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Of a corpus, as it is committed.
readonly file_bytes_max=3000

missing() {
    echo "fuzz/grow.sh: $1 is missing; install it: $2" >&2
    exit 2
}
cargo fuzz --version >/dev/null 2>&1 || missing "cargo-fuzz" "cargo install cargo-fuzz"
cargo +nightly --version >/dev/null 2>&1 || missing "a nightly toolchain" "rustup toolchain install nightly"

mapfile -t targets < <(cargo +nightly fuzz list)
if [[ $# -gt 0 ]]; then
    [[ " ${targets[*]} " == *" $1 "* ]] || { echo "fuzz/grow.sh: there is no target $1; there are ${targets[*]}" >&2; exit 2; }
    targets=("$1")
fi
seconds=${2:-600}
[[ $seconds =~ ^[0-9]+$ ]] || { echo "fuzz/grow.sh: $seconds is no number of seconds" >&2; exit 2; }

work_dir=$(mktemp -d)
trap 'rm -rf "$work_dir"' EXIT

found=()
for target in "${targets[@]}"; do
    echo "--- $target, $seconds s"
    grown=$work_dir/$target/grown least=$work_dir/$target/least corpus=fuzz/corpus/$target
    mkdir -p "$grown" "$least" "$corpus"
    # What is found first goes into the new directory; the committed one is only read.
    if ! nice -n "${NICE:-15}" cargo +nightly fuzz run "$target" "$grown" "$corpus" -- \
        -max_total_time="$seconds" -max_len=8192 -timeout=20 -malloc_limit_mb=256 -print_final_stats=1 -verbosity=0; then
        found+=("$target")
        continue
    fi
    # The smallest set that reaches everything; long inputs are not worth their octets. (`cargo fuzz cmin` does the same
    # without the choice.)
    nice -n "${NICE:-15}" cargo +nightly fuzz run "$target" "$least" "$grown" "$corpus" -- \
        -set_cover_merge=1 -use_counters=0 -max_len="$file_bytes_max" -timeout=20 -verbosity=0
    rm -rf "$corpus"
    cp -r "$least" "$corpus"
    echo "$corpus: $(find "$corpus" -type f | wc -l) files, $(cat "$corpus"/* | wc -c) octets"
done

if [[ ${#found[@]} -gt 0 ]]; then
    echo "found something: ${found[*]}. Put the inputs from fuzz/artifacts/ into fuzz/regressions/TARGET/, and see docs/fuzzing.md" >&2
    exit 1
fi
