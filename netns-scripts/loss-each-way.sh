#!/usr/bin/env bash
# A network that loses packets between a client and the servers, on the way to the client, from it, and both: a download and
# an upload at the same time arrive whole, the same server answers, and tshark flags no more on the client's wire than it
# does without handoff. SIZE, RATES (percent) and WHERE choose; CONGESTION is the congestion
# control of all (reno; the-hosts for what the host has).
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/oracle.sh
. "$scripts_dir/lib/oracle.sh"
# shellcheck source=netns-scripts/lib/exchange.sh
. "$scripts_dir/lib/exchange.sh"
: "${SIZE:=4M}" "${RATES:=1 5}" "${WHERE:=client}" "${CONGESTION:=reno}"

topology_up a b
make_file large "$SIZE"
start_applications
oracle_ready
# With reno, which every namespace may use, counts vary little; it takes its time where much is lost.
if [[ $CONGESTION != the-hosts ]]; then
    for node in a b client; do in_ns "$node" sh -c "echo $CONGESTION >/proc/sys/net/ipv4/tcp_congestion_control"; done
fi
say "$SIZE down and up, by $(in_ns a cat /proc/sys/net/ipv4/tcp_congestion_control)"
[[ $SIZE != ??M ]] || export CAPTURE_LARGE=yes
export NO_VIDEOS=yes BATON_RUST_LOG=baton=info CAPTURE_EACH=yes

declare -A table=()
# losing RATE WHERE: one course.
losing() {
    [[ $1 == 0 ]] || lose_packets "$1" "$2"
    both_ways large
    if [[ $1 != 0 ]]; then
        # Less than this would be no such loss; a segment has at most 1448 octets.
        assert_at_least "packets lost" $((segments * $1 / 200)) "$(lost_packets)"
        lose_no_more_packets
    fi
    table[$1-$2-$way]="$seconds_down $seconds_up"
}
segments=$(($(stat -c %s "$run_dir/www/large") / 1448))
courses=()
for rate in $RATES; do
    for where in $WHERE; do
        courses+=("losing $rate $where")
        # Nothing is lost in no direction.
        [[ $rate != 0 ]] || break
    done
done
three_ways "${courses[@]}"

say "compared"
for course in "${courses[@]}"; do
    name=${course// /-}
    for way in ${WAYS#without}; do assert_no_worse_than "$name-$way" "$name-without" 1.5 40; done
done
say "seconds, down and up: without, with baton and local, handed off"
for course in "${courses[@]}"; do
    read -r _ rate where <<<"$course"
    say "        $rate % $where: ${table[$rate-$where-without]} | ${table[$rate-$where-local]:-} | ${table[$rate-$where-handed-off]}"
done

say "the same checks, fed with what is wrong"
name=${courses[-1]// /-}
must_fail "this loses more than that" assert_no_worse_than "$name-handed-off" "${courses[0]// /-}-without" 1.5 40
server=a content=/images
must_fail "b answers this" both_ways large

scenario_end
