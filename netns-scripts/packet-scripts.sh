#!/usr/bin/env bash
# Scripts in packetdrill's notation (tests/drill/cases, docs/packet-scripts.md) against three servers at once: c, which has
# no baton and shows what the kernel does; a, which decides to serve itself; and b, to which a hands off. What each script
# expects is the same for all of them, and so is everything a client could compare.
#
#   netns-scripts/packet-scripts.sh                                 all scripts, and the controls, which must fail
#   netns-scripts/packet-scripts.sh tests/drill/cases/NAME.pkt...   these, and what each peer sent and received
#   WAYS=plain netns-scripts/packet-scripts.sh ...                  only what the kernel alone does
#
#     client                                   c     plain      GET /nothing/x
#       '- TUN, 10.79.0.0/16, fd79::/64        a     local      GET /locally/x
#          an address for each peer            b     handed off GET /distant/x to a
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/routed.sh
. "$scripts_dir/lib/routed.sh"

: "${DRILL:=$(dirname "$BATON")/drill}"
[[ -x $DRILL ]] || fail "no $DRILL; 'cargo build' makes it, and so does --release"
: "${WAYS:=plain local handed-off}"
scripts=("$@")
[[ ${#scripts[@]} -gt 0 ]] || scripts=("$project_dir"/tests/drill/cases/*.pkt)
"$DRILL" check "${scripts[@]}"

topology_up a b
plug c
client=$(namespace client)
ip -n "$client" tuntap add mode tun name drill0
ip -n "$client" link set drill0 up
ip -n "$client" route add 10.79.0.0/16 dev drill0
ip -n "$client" route add fd79::/64 dev drill0
in_ns client sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
for node in a b c; do
    ip -n "$(namespace "$node")" route add 10.79.0.0/16 via "${address_of[client4]}"
    ip -n "$(namespace "$node")" route add fd79::/64 via "${address_of[client6]}"
    spawn "$node" "$run_dir/log/scripted-$node.log" \
        "$PYTHON" "$scripts_dir/tools/scripted_server.py" "$run_dir/scripted-$node.sock" 80
done
for node in a b c; do wait_until 10 test -S "$run_dir/scripted-$node.sock"; done

RULES='
      - name: distant
        when: { path: "/distant/*" }
        send_to: b'
write_cluster
start_cluster

# What scripts call 1460 is what fits 1500 octets; a front-end lets less, so that a client's segments fit the overlay.
mss_without_baton=(0 0 0 0 1460 0 1440)
mss_with_baton=(0 0 0 0 1404 0 1384)
# way NAME SERVER FAMILY PATH APPLICATION MSS
way() { printf -- '--way %s,%s,%s,%s,%s' "$1-ipv$3" "${host_of[$2$3]}:80" "$4" "$run_dir/scripted-$5.sock" "$6"; }
ways() {
    local family way
    for way in $WAYS; do
        for family in 4 6; do
            case $way in
                plain) way plain c $family /nothing/x c "${mss_without_baton[family]}" ;;
                local) way local a $family /locally/x a "${mss_with_baton[family]}" ;;
                handed-off) way handed-off a $family /distant/x b "${mss_with_baton[family]}" ;;
                *) fail "WAYS: '$way' is none of plain, local and handed-off" ;;
            esac
            echo
        done
    done
}
# play SCRIPT...: in the ways that are lines of standard input.
play() {
    local ways
    mapfile -t ways < <(tr ' ' '\n')
    in_ns client "$DRILL" run --tun drill0 --traces "$run_dir/log" "${ways[@]}" "$@"
}
# meet_anew: what those before have left of a client's address is forgotten.
meet_anew() {
    local node
    forget_path_mtus a b c
    for node in a b c; do in_ns "$node" ip tcp_metrics flush all >/dev/null; done
}
# play_with_probing VALUE SCRIPT...: those whose servers' kernels have that value of tcp_mtu_probing, a setting of the namespace.
play_with_probing() {
    local value=$1 node
    shift
    for node in a b c; do in_ns "$node" sh -c "echo $value >/proc/sys/net/ipv4/tcp_mtu_probing"; done
    meet_anew
    [[ $# -eq 0 ]] || ways | play "$@" >>"$run_dir/log/played" || failed=yes
}
say "${#scripts[@]} scripts over both families: $WAYS"
mapfile -t of_probing < <(grep -lE '^--mtu_probing=2$' "${scripts[@]}")
mapfile -t of_others < <(grep -LE '^--mtu_probing=2$' "${scripts[@]}")
mark
play_with_probing 2 "${of_probing[@]}"
play_with_probing 0 "${of_others[@]}"
cat "$run_dir/log/played"
if [[ $# -gt 0 ]]; then
    for trace in "$run_dir"/log/*-ipv[46]; do
        heading "$(basename "$trace")"
        cat "$trace"
    done
fi
[[ -z ${failed:-} ]] || fail "see above"
# Each script was asked whether it was handed off as it says; what it cost to play some of them again is counted too.
handoffs=$(awk '$1 == "handoffs:" { sum += $2 } END { print sum }' "$run_dir/log/played")
assert_counts "a.handed_off=$handoffs" "b.accepted=$handoffs"

if [[ $# -eq 0 ]]; then
    say "controls: each kind of expectation, wrong"
    controls=("$project_dir"/tests/drill/controls/*.pkt)
    meet_anew
    WAYS=plain ways | sed -n 1p | play "${controls[@]}" || fail "a control did not fail as it must"
    must_fail "scripts of another number" assert_counts "a.handed_off=$((handoffs + 1))" "b.accepted=$handoffs"
fi

scenario_end
