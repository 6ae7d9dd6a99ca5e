#!/usr/bin/env bash
# A connection that stays local is the kernel's own: what the client sees on the wire are the sequence numbers that the
# server's kernel chose.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file picture 1M
start_applications
NO_VIDEOS=yes start_cluster

# What a kernel chooses is seen where its packets are made, before anything can change them.
for node in a b; do
    in_ns "$node" nft -f - <<'END'
table inet born {
  set isns { typeof tcp dport . tcp sequence; flags dynamic; size 65535; }
  chain leaves {
    type filter hook output priority -500;
    tcp sport 80 tcp flags & (syn | ack) == (syn | ack) update @isns { tcp dport . tcp sequence }
  }
}
END
done
# born NODE PORT...: the initial sequence numbers that NODE's kernel chose for connections from these client ports.
born() { in_ns "$1" nft -j list set inet born isns | "$PYTHON" -c '
import json, sys
for item in json.load(sys.stdin)["nftables"]:
    for element in item.get("set", {}).get("elem", []):
        print(*element["concat"])' | only_ports "${@:2}"; }
seen() { "$PYTHON" "$scripts_dir/tools/capture.py" isns "$run_dir/capture-client.pcap" | only_ports "$@"; }
only_ports() { grep -E "^($(IFS='|'; echo "$*")) " | sort -u; }
assert_kernels_own() { assert_eq "initial sequence numbers of ${#ports[@]} connections" "$(born "$1" "${ports[@]}" | xargs)" "$(seen "${ports[@]}" | xargs)"; }

start_capture client
mark
local_ports=() handed_off_ports=()
for _ in {1..10}; do
    fetch client a /elsewhere/picture
    assert_answered a
    local_ports+=("$local_port")
    fetch client a /images/picture
    assert_answered b
    handed_off_ports+=("$local_port")
done
assert_counts a.handed_off=10 b.accepted=10
stop_capture client

ports=("${local_ports[@]}")
assert_eq "local connections" 10 "$(seen "${ports[@]}" | wc -l)"
assert_kernels_own a
# A shift that is right at the start and wrong later would show here.
"$PYTHON" "$scripts_dir/tools/capture.py" check "$run_dir/capture-client.pcap" || fail "sequence numbers from another space"
ok "every later segment lies in that sequence space"
ports=("${handed_off_ports[@]}")

say "the same checks, fed with the others"
must_fail "the last one was b's" assert_answered a
must_fail "half were handed off" assert_counts
must_fail "these came from the kernel of b, translated" assert_kernels_own b

scenario_end
