#!/usr/bin/env bash
# Everything that is tested, by one command:
#
#   tests/run.sh                the core: format, lints, documentation, unit and property tests, scripts, scenarios
#   tests/run.sh --full         and the long ones; may be interrupted: what has passed on this state of the
#                               files is not repeated
#   tests/run.sh --only NAME    one step (--list tells their names; a pattern such as 'stop*' works too)
#
# Installs what is missing, runs every step even if one has failed, keeps each step's output under target/tests/, and
# closes with one line: `N passed, N failed`. Scenarios mostly wait, so up to three run at once (LANES=1: one after the
# other); a step that measures time or needs the whole machine runs alone.

set -euo pipefail

project_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$project_dir"
target_dir=${CARGO_TARGET_DIR:-$project_dir/target}
log_dir=$target_dir/tests
# shellcheck source=netns-scripts/lib/install.sh
. "$project_dir/netns-scripts/lib/install.sh"

# --- the steps ----------------------------------------------------------------------------------------------------

# Each line: name, bound in seconds, command. A `scenario` may run beside others; an `alone` is a scenario that may not. Their
# names are those of their scripts, with the family if that is IPv6.
core_steps() {
    cat <<'END'
format               120  check_format
lints                900  cargo clippy --all-targets -- -D warnings
documentation        600  check_documentation
tests                900  cargo test
scripts              120  check_scripts
build                900  cargo build --release
swarm                300  cargo test --release --test sim swarm -- --nocapture
host                 240  tests/host.sh
scenario             120  netns-scripts/leaves-nothing-behind.sh
scenario             120  netns-scripts/handed-off-get.sh
scenario             120  netns-scripts/forward-link.sh
scenario             120  netns-scripts/forward-link-traps.sh
scenario             120  netns-scripts/as-without-handoff.sh
scenario             120  netns-scripts/any-segmentation.sh
scenario             120  netns-scripts/tls-by-name.sh
scenario             120  netns-scripts/examples.sh
scenario              90  netns-scripts/every-protocol.sh
scenario              90  netns-scripts/smuggling.sh
scenario             120  netns-scripts/first-syn-ack-is-lost.sh
alone                120  netns-scripts/lost-and-repeated-handshakes.sh
scenario             150  netns-scripts/options-that-fall-back.sh
scenario             150  netns-scripts/settings-of-three-kernels.sh
scenario             180  netns-scripts/large-transfers.sh
scenario             120  netns-scripts/falls-back-to-the-local-server.sh
scenario              60  netns-scripts/chooses-servers.sh
scenario             120  netns-scripts/local-connections-are-the-kernels.sh
scenario             120  netns-scripts/local-bypass.sh
scenario             150  netns-scripts/killed-under-a-local-download.sh
scenario             150  netns-scripts/restarted-under-local-requests.sh
scenario             150  netns-scripts/stop-drains.sh
scenario             150  netns-scripts/reload.sh
scenario             180  netns-scripts/nothing-untranslated-leaves.sh
scenario             120  netns-scripts/server-ports.sh
scenario             120  netns-scripts/address-of-its-own.sh
scenario             120  netns-scripts/client-on-a-server.sh
scenario             120  netns-scripts/reused-source-port.sh
scenario             120  netns-scripts/layer-4.sh
scenario             120  netns-scripts/shared-address.sh
scenario             120  netns-scripts/forged-segments.sh
scenario             120  netns-scripts/packet-comments.sh
scenario             120  netns-scripts/what-operators-look-at.sh
scenario             120  netns-scripts/silent-clients.sh
scenario             300  env WAYS='without handed-off' netns-scripts/loss-each-way.sh
scenario             300  env WAYS='without handed-off' netns-scripts/impaired-network.sh
scenario             120  netns-scripts/half-closed.sh
scenario             120  netns-scripts/resets-at-every-state.sh
scenario             120  netns-scripts/stops-reading.sh
scenario             120  netns-scripts/http-courses.sh
scenario             150  netns-scripts/long-lived.sh
scenario             120  netns-scripts/narrow-route-to-the-client.sh
scenario             300  netns-scripts/path-narrows.sh
scenario             120  netns-scripts/promises.sh
scenario             120  netns-scripts/settings-that-differ.sh
scenario             120  netns-scripts/full-accept-queue.sh
scenario             120  netns-scripts/health.sh
scenario             120  netns-scripts/probes.sh
scenario             120  netns-scripts/deferring-listener.sh
scenario             120  netns-scripts/hung-process.sh
scenario              90  netns-scripts/backlog-in-the-tun.sh
scenario             120  netns-scripts/host-is-restored.sh
scenario             120  netns-scripts/wrong-environments.sh
scenario             120  netns-scripts/hostile-firewall.sh
scenario             120  netns-scripts/cleanup.sh
scenario             120  netns-scripts/forwards-nothing-else.sh
scenario             120  netns-scripts/host-becomes-no-router.sh
scenario             120  netns-scripts/both-families.sh
scenario             120  netns-scripts/unusual-packets.sh
scenario             150  netns-scripts/packet-scripts.sh
scenario             120  netns-scripts/client-behind-a-router.sh
scenario             120  env FAMILY=6 netns-scripts/client-behind-a-router.sh
scenario             120  env FAMILY=6 netns-scripts/handed-off-get.sh
scenario             120  env FAMILY=6 netns-scripts/any-segmentation.sh
scenario             120  env FAMILY=6 netns-scripts/falls-back-to-the-local-server.sh
scenario             180  env FAMILY=6 netns-scripts/large-transfers.sh
scenario             120  env FAMILY=6 netns-scripts/half-closed.sh
scenario             120  env FAMILY=6 netns-scripts/resets-at-every-state.sh
scenario             150  env FAMILY=6 netns-scripts/stop-drains.sh
scenario             180  env FAMILY=6 netns-scripts/nothing-untranslated-leaves.sh
scenario             120  env FAMILY=6 netns-scripts/narrow-route-to-the-client.sh
scenario             120  env FAMILY=6 netns-scripts/host-is-restored.sh
alone                180  netns-scripts/offload.sh
alone                150  netns-scripts/slow-and-far.sh
alone                300  env CONNECTIONS=10000 REQUESTS=50000 netns-scripts/many-connections.sh
alone                600  env CONNECTIONS=80000 netns-scripts/every-direction-at-once.sh
alone                180  env FAMILY=6 netns-scripts/offload.sh
alone                120  env FAMILY=6 ROUNDS=1 CONNECTIONS=4000 REQUESTS=20000 netns-scripts/many-connections.sh
demonstration        300  netns-scripts/demo.sh
END
}

long_steps() {
    cat <<'END'
every-schedule      1200  cargo test --release --test ownership
wrong-rules         3600  tests/wrong-rules.sh
many-cases          2400  env PROPTEST_CASES=20000 cargo test --release
scenario             600  netns-scripts/lossy-network.sh
large-and-lossy     1500  env SIZE=50M RATES='0 1 5 10' WHERE='to-client from-client client' CONGESTION=the-hosts netns-scripts/loss-each-way.sh
large-and-impaired  1500  env SIZE=50M KINDS='duplicating reordering jittering losing-in-bursts corrupting corrupting-towards-servers everything' CONGESTION=the-hosts netns-scripts/impaired-network.sh
scenario             300  netns-scripts/link-sizes.sh
large-links          300  env SIZE=50M netns-scripts/link-sizes.sh
scenario             300  env FAMILY=6 netns-scripts/link-sizes.sh
scenario             900  netns-scripts/killed-again-and-again.sh
scenario             150  env FAMILY=6 netns-scripts/killed-under-a-local-download.sh
scenario              60  netns-scripts/syn-cookies.sh
scenario             120  env FAMILY=6 netns-scripts/first-syn-ack-is-lost.sh
alone                120  env FAMILY=6 netns-scripts/lost-and-repeated-handshakes.sh
scenario             120  env FAMILY=6 netns-scripts/health.sh
scenario             120  env FAMILY=6 netns-scripts/probes.sh
scenario             150  env FAMILY=6 netns-scripts/options-that-fall-back.sh
scenario             300  env FAMILY=6 netns-scripts/path-narrows.sh
scenario             120  env FAMILY=6 netns-scripts/reused-source-port.sh
bypass-for-longer    150  env LONG=yes FAMILY=6 netns-scripts/local-bypass.sh
every-setting       1200  env EVERY=1 netns-scripts/settings-of-three-kernels.sh
scenario             120  env FAMILY=6 netns-scripts/silent-clients.sh
scenario             120  env FAMILY=6 netns-scripts/forward-link.sh
links-for-longer     400  env LONG=yes FAMILY=6 netns-scripts/forward-link-traps.sh
scenario             120  env FAMILY=6 netns-scripts/as-without-handoff.sh
scenario             120  env FAMILY=6 netns-scripts/forged-segments.sh
idle-for-minutes     900  env LONG=yes netns-scripts/long-lived.sh
scenario             120  env FAMILY=6 netns-scripts/stops-reading.sh
scenario             120  env FAMILY=6 netns-scripts/http-courses.sh
scenario             150  env FAMILY=6 netns-scripts/long-lived.sh
all-at-once-200000   600  netns-scripts/every-direction-at-once.sh
many-more-rounds    1800  env ROUNDS=12 netns-scripts/many-connections.sh
side-by-side         600  benches/side-by-side.sh --quick
END
}

# Who reads the documentation of a program works on it: private items are part of it, and may be linked to.
check_documentation() {
    RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --no-deps --document-private-items
}

# The fuzz targets are a package of their own, which only a nightly toolchain builds; its sources are formatted like all.
check_format() {
    cargo fmt --all --check -- --color=never
    cargo fmt --manifest-path fuzz/Cargo.toml --check -- --color=never
}

check_scripts() { printf '%s\0' netns-scripts/*.sh benches/*.sh tests/*.sh tests/*/*.sh fuzz/*.sh .ci/run | xargs -0 -n 8 -P 2 shellcheck -x -a; }

# --- the arguments ------------------------------------------------------------------------------------------------

full=no only='' list=no
while [[ $# -gt 0 ]]; do
    case $1 in
        --full) full=yes ;;
        --only)
            [[ $# -ge 2 ]] || { echo "--only needs the name of a step; --list tells them" >&2; exit 2; }
            only=$2
            shift
            ;;
        --list) list=yes ;;
        -h | --help)
            sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        *)
            echo "unknown argument: $1 (--help tells what there is)" >&2
            exit 2
            ;;
    esac
    shift
done

names=() bounds=() commands=() is_alone=()
take_steps() {
    local name bound command
    while read -r name bound command; do
        if [[ $name == scenario ]]; then is_alone+=(no); else is_alone+=(yes); fi
        case $name in scenario | alone) name=$(basename "$command" .sh) ;; esac
        [[ $command != *FAMILY=6* ]] || name+=-ipv6
        names+=("$name")
        bounds+=("$bound")
        commands+=("$command")
    done
}
take_steps < <(core_steps)
core_count=${#names[@]}
take_steps < <(long_steps)

if [[ $list == yes ]]; then
    for ((i = 0; i < ${#names[@]}; i++)); do
        if ((i < core_count)); then echo "${names[i]}"; else echo "${names[i]}  (only with --full)"; fi
    done
    exit 0
fi

chosen=() left_out=()
for ((i = 0; i < ${#names[@]}; i++)); do
    if [[ -n $only ]]; then
        # shellcheck disable=SC2053 # the argument is a pattern
        [[ ${names[i]} != $only ]] || chosen+=("$i")
    elif ((i < core_count)) || [[ $full == yes ]]; then
        chosen+=("$i")
    else
        left_out+=("${names[i]}")
    fi
done
[[ ${#chosen[@]} -gt 0 ]] || { echo "no step is called '$only'; --list tells their names" >&2; exit 2; }

# --- running ------------------------------------------------------------------------------------------------------

need_root
need_rust
need_rust_component rustfmt fmt
need_rust_component clippy clippy
install_missing ip:iproute2 nft:nftables nginx:nginx curl:curl python3:python3 tcpdump:tcpdump tshark:tshark ethtool:ethtool \
    shellcheck:shellcheck cc:build-essential openssl:openssl
need_kernel
mkdir -p "$log_dir"

# state_of_the_files: the same for the same content, whether committed or not.
state_of_the_files() {
    {
        if git rev-parse HEAD 2>/dev/null; then
            git diff HEAD
            git ls-files --others --exclude-standard -z | xargs -0 -r sha256sum
        else
            find . -path ./target -prune -o -type f -print0 | sort -z | xargs -0 sha256sum
        fi
    } | sha256sum | cut -c 1-16
}
state=$(state_of_the_files)
passed_dir=$log_dir/passed-$state
mkdir -p "$passed_dir"

declare -A step_of=() began=() run_id_of=()
end_running() {
    # Each step runs in a process group of its own, which `timeout` leads and to which it passes the signal on.
    [[ ${#step_of[@]} -eq 0 ]] || { kill -TERM "${!step_of[@]}" 2>/dev/null; wait "${!step_of[@]}" 2>/dev/null; } || true
}
trap 'end_running; exit 130' INT
trap 'end_running; exit 143' TERM
trap 'end_running; exit 129' HUP

# left_behind RUN_ID: namespaces of this scenario that still exist. They are removed, and the scenario has failed.
left_behind() {
    local name found=1
    for name in /run/netns/bt"$1"-*; do
        [[ -e $name ]] || continue
        name=${name##*/}
        echo "left behind: namespace $name"
        # shellcheck disable=SC2046 # one word per process id
        kill -KILL $(ip netns pids "$name") 2>/dev/null || true
        ip netns delete "$name" || true
        found=0
    done
    return $found
}

lanes=${LANES:-3}
[[ $lanes =~ ^[1-9]$ ]] || { echo "LANES is how many scenarios run at once, 1 to 9; not '$lanes'" >&2; exit 2; }
passed=0 failed=0 done_count=0
export -f check_format check_scripts check_documentation

say_of() { printf '[%2d/%2d] %-36s %s\n' $((++done_count)) ${#chosen[@]} "${names[$1]}" "$2"; }

# start N I: step I, the Nth that is run, in the background.
start() {
    local i=$2 log=$log_dir/${names[$2]}.log run_id=t$$x$1
    rm -rf "${log_dir:?}/${names[i]}"
    BATON_RUN_ID=$run_id BATON_LOGS=$log_dir/${names[i]} \
        timeout --kill-after=20 "${bounds[i]}" bash -c "${commands[i]}" >"$log" 2>&1 </dev/null &
    step_of[$!]=$i began[$!]=$SECONDS run_id_of[$!]=$run_id
}

# finish_one: waits for one of those that run, and says how it ended.
finish_one() {
    local pid status=0 i name log seconds
    wait -n -p pid "${!step_of[@]}" || status=$?
    i=${step_of[$pid]} seconds=$((SECONDS - began[$pid]))
    name=${names[i]} log=$log_dir/${names[i]}.log
    if left_behind "${run_id_of[$pid]}" >>"$log"; then status=1; fi
    unset "step_of[$pid]" "began[$pid]" "run_id_of[$pid]"
    if [[ $status -eq 0 ]]; then
        say_of "$i" "passed  ($seconds s)"
        passed=$((passed + 1))
        # Nobody knows which state has passed if the files were changed meanwhile.
        [[ $(state_of_the_files) != "$state" ]] || touch "$passed_dir/$name"
    else
        [[ $status -ne 124 ]] || echo "not done within ${bounds[i]} s" >>"$log"
        say_of "$i" "FAILED  ($seconds s); the end of $log:"
        # The verdict comes before what is dumped for the one who looks for its reason.
        { grep -E -m 6 -A 5 '^error|FAIL|panicked at|^Diff in' "$log" || true; echo '...'; tail -n 30 "$log"; } | sed 's/^/        | /'
        failed=$((failed + 1))
    fi
}

# make_room N: until no more than N run.
make_room() { while [[ ${#step_of[@]} -gt $1 ]]; do finish_one; done; }

if [[ -n $only ]]; then
    for i in "${chosen[@]}"; do
        [[ ${commands[i]} != *netns-scripts/* ]] || { cargo build --release >"$log_dir/build.log" 2>&1 || cat "$log_dir/build.log"; break; }
    done
fi
for ((n = 0; n < ${#chosen[@]}; n++)); do
    i=${chosen[n]}
    # What was built may since have been replaced by what other files make.
    if [[ $full == yes && ${names[i]} != build && -e $passed_dir/${names[i]} ]]; then
        say_of "$i" "passed before, on the same files"
        passed=$((passed + 1))
        continue
    fi
    if [[ ${is_alone[i]} == yes ]]; then make_room 0; else make_room $((lanes - 1)); fi
    start "$n" "$i"
    [[ ${is_alone[i]} == no ]] || make_room 0
done
make_room 0

if [[ ${#left_out[@]} -gt 0 ]]; then
    echo "left out (--full runs them): ${left_out[*]}"
fi
echo "$passed passed, $failed failed"
[[ $failed -eq 0 ]]
