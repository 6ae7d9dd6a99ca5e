#!/usr/bin/env bash
# Connections that the local server serves leave the TUN, and nothing else does: not a SYN, not a connection with the ends of
# one that left, not one that is handed off. What the kernel forgets, cannot take, or must not let pass goes through the TUN.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file big 40M
make_file small 2K
start_applications
NO_VIDEOS=yes start_cluster

# learned FAMILY: client ports of the connections that a's kernel has learned.
learned() {
    in_ns a nft -j list set inet baton "local$1" | "$PYTHON" -c '
import json, sys
for item in json.load(sys.stdin)["nftables"]:
    for element in item.get("set", {}).get("elem", []):
        print(element["elem"]["val"]["concat"][1])'
}
knows() { grep -qx "$2" <<<"$(learned "$1")"; }
does_not_know() { ! knows "$@"; }
since() { echo $(($(stat_of a "$1") - before[$1])); }
note() {
    local name
    for name in tun_read_packets_total tun_written_packets_total syns_total local_taught_total local_not_taught_total local_bypassed_packets_total; do before[$name]=$(stat_of a "$name"); done
    mark
}
declare -A before=()
# What a download costs the process: handshake, request, what teaches, and the way that is tried once a second.
assert_leaves() { assert_at_most "packets that a read for $1" "${2:-30}" "$(since tun_read_packets_total)"; }
# from_client FAMILY: packets that the client's wire has carried to a.
from_client() { wire traffic client "${address_of[client$1]}" "${address_of[a$1]}" | awk '{ sum += $1 } END { print sum + 0 }'; }

say "a download and an upload, over both families"
FETCH_URL="http://${host_of[a4]}" fetch client a /elsewhere/small # nothing has come that way yet
FETCH_URL="http://${host_of[a6]}" fetch client a /elsewhere/small
for family in 4 6; do
    export FETCH_URL="http://${host_of[a$family]}"
    note
    fetch client a /elsewhere/big
    assert_answered a
    assert_same_file "the answer" big
    assert_leaves "a download of 40 MB"
    assert_at_least "packets past the TUN" 100 "$(since local_bypassed_packets_total)"
    knows "$family" "$local_port" || fail "the kernel has not learned $local_port"
    note
    fetch client a /elsewhere/upload -T "$run_dir/www/big" -H Expect:
    assert_answered a
    assert_eq "what the application got" "$(sha256sum <"$run_dir/www/big" | cut -d ' ' -f 1)" "$(<"$body")"
    # Left in the middle, it would overtake itself.
    assert_at_most "packets of an upload past the TUN" 5 "$(since local_bypassed_packets_total)"
    assert_counts
    note
    fetch client a /images/big
    assert_answered b
    assert_same_file "the handed-off answer" big
    assert_counts a.handed_off=1 b.accepted=1
    must_fail "its acknowledgements go to b" assert_leaves "a download that was handed off"
    does_not_know "$family" "$local_port" || fail "the kernel has learned a connection that was handed off"
done
unset FETCH_URL

say "connections with the same ends, at once, here and there: every SYN is captured"
# again PORT: 60 of them.
again() {
    tool client load reuse "${address_of[a]}" --connections 60 --source-port "$1" --body "$run_dir/www/small" \
        --expect /elsewhere/small=a --expect /elsewhere/small=a --expect /images/small=b
}
note
again 6000 || fail "errors"
assert_counts a.handed_off=20 b.accepted=20
assert_eq "SYNs that a saw" 60 "$(since syns_total)"
assert_at_least "connections that the kernel learned meanwhile" 20 "$(since local_taught_total)"

say "the same, with rules that look up SYNs like everything else"
for family in 4 6; do
    rules=$(in_ns a nft list chain inet baton "bypass$family" | grep @local | grep -v 'delete @local')
    in_ns a nft -f - <<<"flush chain inet baton bypass$family; table inet baton { chain bypass$family { $rules; notrack meta mark set 0x7; }; }"
    handle=$(in_ns a nft -a list chain inet baton answers | grep "delete @local$family" | sed 's/.*# handle //')
    in_ns a nft delete rule inet baton answers handle "$handle"
done
swallowed() {
    note
    again 6001 || return 1
    [[ $(counts_since_mark) == 'a.handed_off=20 b.accepted=20' && $(since syns_total) == 60 ]]
}
must_fail "old entries catch new connections" swallowed
stop_baton a
start_baton a
wait_for_peers

# keep PORT: a connection from this port that is kept alive; `ask` sends a request over it and wants the answer.
keep() {
    coproc KEPT { in_ns client "$PYTHON" -c '
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], 80, timeout=5, source_address=("", int(sys.argv[2])))
for line in sys.stdin:
    connection.request("GET", "/elsewhere/big")
    answer = connection.getresponse()
    print(answer.getheader("X-Server"), len(answer.read()), flush=True)
' "${address_of[a]}" "$1" 2>&1; }
}
ask() {
    local answer
    echo >&"${KEPT[1]}"
    read -r -t 10 answer <&"${KEPT[0]}" || fail "no answer"
    assert_eq "the answer" "a $((40 << 20))" "$answer"
}

# The connection is closed.
let_go() {
    local descriptor=${KEPT[1]} process=$KEPT_PID
    exec {descriptor}>&-
    wait "$process"
}

say "what the kernel forgets comes back, and it learns again"
keep 6200
ask
note
for flushed in 1 2 3; do
    in_ns a nft flush set inet baton "local$FAMILY"
    does_not_know "$FAMILY" 6200 || fail "it was not flushed"
    ask
    knows "$FAMILY" 6200 || fail "the kernel has not learned $flushed times"
done
assert_at_least "packets that taught" 3 "$(since local_taught_total)"
assert_leaves "three downloads of 40 MB" 150
if [[ -n ${LONG:-} ]]; then
    say "one that was silent for long"
    wait_until 15 does_not_know "$FAMILY" 6200
    ask
    knows "$FAMILY" 6200 || fail "the kernel has not learned it again"
fi

if [[ -n ${LONG:-} ]]; then
    say "a set that is full: everything goes through the TUN"
    in_ns a nft flush set inet baton "local$FAMILY"
    # As many as there may be, for 10 s.
    "$PYTHON" - "$FAMILY" >"$run_dir/others" <<'END'
import sys
to, others = {"4": ("192.0.2.1", "192.0.2.2"), "6": ("2001:db8::1", "2001:db8::2")}[sys.argv[1]]
for port in range(4):
    elements = ", ".join(f"{others} . {client} . {to} . {port}" for client in range(65536))
    print(f"add element inet baton local{sys.argv[1]} {{ {elements} }}")
END
    in_ns a nft -f "$run_dir/others"
    note
    fetch client a /elsewhere/big
    assert_answered a
    assert_same_file "the answer" big
    assert_at_least "packets that could not teach" 100 "$(since local_not_taught_total)"
    must_fail "the set is full" assert_leaves "a download of 40 MB"
    ask
    in_ns a nft flush set inet baton "local$FAMILY"
    note
    fetch client a /elsewhere/big
    assert_same_file "the answer" big
    assert_leaves "a download of 40 MB"
fi

let_go

say "a packet of no connection teaches nothing"
in_ns a nft flush set inet baton "local$FAMILY"
assert_eq "what the stray segment got" reset "$(tool client stray_ack "${address_of[a]}" 80)"
assert_eq "connections that the kernel knows" 0 "$(learned "$FAMILY" | wc -l)"

say "a firewall that lets local connections in through bt0 only"
in_ns a nft -f - <<'END'
table inet wall {
  chain enters {
    type filter hook input priority 0; policy drop;
    iifname { "lo", "bt0" } accept
    ct state established,related accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    tcp dport 7400 accept
    udp dport 7400 accept
    tcp dport 80 ct state new accept
  }
}
END
# What has proved the way before counts for a while; a start begins anew.
stop_baton a
start_baton a
note
FETCH_TIMEOUT=5 fetch client a /elsewhere/big
assert_answered a
assert_same_file "the answer" big
assert_at_most "packets that were tried" $((${seconds%.*} + 3)) "$(since local_bypassed_packets_total)"
must_fail "the firewall takes no others" assert_leaves "a download of 40 MB"

say "somebody flushes all rules: they are put back, and the kernel learns again"
keep 6201
ask
in_ns a nft flush ruleset
ask
restored() { [[ $(stat_of a rules_restored_total) -eq 1 ]]; }
wait_until 5 restored
ask
fetch client a /elsewhere/big
assert_answered a
assert_same_file "the answer" big
# The way is tried once a second, with what comes then.
learns_again() { ask && knows "$FAMILY" 6201; }
wait_until 5 learns_again
let_go

scenario_end
