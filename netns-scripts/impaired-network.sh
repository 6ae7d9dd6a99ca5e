#!/usr/bin/env bash
# A network that duplicates, reorders, delays, loses in bursts and corrupts what passes between a client and the servers: a
# download and an upload at the same time arrive whole, the same server answers, and tshark flags no more on the client's wire
# than it does without handoff. SIZE and KINDS choose; CONGESTION is the congestion control of all (reno; the-hosts for what the
# host has). Of large transfers that stand still it is noted what there is to see, and the frames that the network spoilt.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/far.sh
. "$scripts_dir/lib/far.sh"
# shellcheck source=netns-scripts/lib/oracle.sh
. "$scripts_dir/lib/oracle.sh"
# shellcheck source=netns-scripts/lib/standstill.sh
. "$scripts_dir/lib/standstill.sh"
# shellcheck source=netns-scripts/lib/exchange.sh
. "$scripts_dir/lib/exchange.sh"
: "${SIZE:=1M}" "${KINDS:=corrupting everything}" "${CONGESTION:=reno}"

topology_up a b
make_file large "$SIZE"
start_applications
oracle_ready
if [[ $CONGESTION != the-hosts ]]; then
    for node in a b client; do in_ns "$node" sh -c "echo $CONGESTION >/proc/sys/net/ipv4/tcp_congestion_control"; done
fi
# Each connection is its client's first: what was measured on another wire is not remembered.
for node in a b client; do in_ns "$node" sh -c 'echo 1 >/proc/sys/net/ipv4/tcp_no_metrics_save'; done
say "$SIZE down and up, by $(in_ns a cat /proc/sys/net/ipv4/tcp_congestion_control), 4 ms away"
[[ $SIZE != ??M ]] || export CAPTURE_LARGE=yes STANDSTILL=${STANDSTILL:-8}
export NO_VIDEOS=yes BATON_RUST_LOG=baton=info CAPTURE_EACH=yes CAPTURE_SENT=yes

declare -A options=(
    [duplicating]='--duplicate 5'
    [reordering]='--reorder 5 --reorder-by 2'
    [jittering]='--jitter 6'
    [losing-in-bursts]='--loss 2 --burst 4'
    [corrupting]='--corrupt 2'
    [corrupting-towards-servers]='--corrupt 5,0'
    [everything]='--jitter 2 --loss 1 --burst 3 --duplicate 2 --reorder 2 --reorder-by 3 --corrupt 1'
)
declare -A did=([duplicating]=duplicated [reordering]=reordered [losing-in-bursts]=lost [corrupting]=corrupted
    [corrupting-towards-servers]=corrupted [everything]='duplicated reordered lost corrupted late' [jittering]=late)
declare -A table=()
prepare_network() {
    # shellcheck disable=SC2086 # one word per option
    move_client_away 4 ${options[$1]} --tell "$run_dir/log/spoilt-$1-$way"
    # The device is a new one.
    complete_checksums client
}
# network KIND: one course.
network() {
    both_ways large
    table[$1-$way]="$seconds_down $seconds_up"
}
finish_network() {
    local what counts
    end_shaper
    for what in ${did[$1]:-}; do
        counts=$(shaper_did "$what")
        assert_at_least "from the client, $what" 3 "$(tr -d '[],' <<<"$counts" | cut -d ' ' -f 1)"
        [[ $1 == *-towards-servers ]] || assert_at_least "to the client, $what" 3 "$(tr -d '[],' <<<"$counts" | cut -d ' ' -f 2)"
    done
}
courses=()
for kind in $KINDS; do courses+=("network $kind"); done
three_ways "${courses[@]}"

say "compared"
for course in "${courses[@]}"; do
    name=${course// /-}
    for way in ${WAYS#without}; do
        # What is spoilt on the way was right when it left; and nobody can tell whether a timestamp goes back where segments
        # come in another order.
        assert_server_clean "$name-$way-sent"
        assert_flags_no_worse_than "$name-$way" "$name-without" 1.5 40
    done
done
say "seconds, down and up: without, with baton and local, handed off"
for kind in $KINDS; do
    say "        $kind: ${table[$kind-without]} | ${table[$kind-local]:-} | ${table[$kind-handed-off]}"
done

say "the same checks, fed with what is wrong"
kind=${KINDS##* }
[[ $kind != corrupting && $kind != everything ]] || must_fail "the network spoils what it carries" assert_clean "network-$kind-handed-off"
sed -i 's/"server.retransmission": [0-9]*/"server.retransmission": 100000/' "$run_dir/oracle-network-$kind-handed-off.json"
must_fail "so many retransmissions" assert_flags_no_worse_than "network-$kind-handed-off" "network-$kind-without" 1.5 40

scenario_end
