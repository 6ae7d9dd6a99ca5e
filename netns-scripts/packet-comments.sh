#!/usr/bin/env bash
# `baton run --pcap FILE`: a capture that tshark reads, in which every packet has a comment that says what baton did with
# it and why, and every checksum is right. The story of a handed-off and of a local connection is in it.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file picture 300K
start_applications
NO_VIDEOS=yes write_cluster

# tshark NODE ARGUMENT...: reads a node's recording, and looks into all checksums.
read_recording() {
    local node=$1
    shift
    tshark -n -r "$run_dir/$node/recording.pcapng" -o ip.check_checksum:TRUE -o tcp.check_checksum:TRUE "$@" 2>>"$run_dir/log/tshark.log"
}

# comments NODE [FILTER]: one line per packet.
comments() { read_recording "$1" -Y "${2:-frame}" -T fields -e frame.comment; }

# count_comments NODE PATTERN [FILTER]
count_comments() { comments "$1" "${3:-frame}" | grep -cE "$2" || true; }

# assert_told NODE PATTERN [FILTER]: at least one packet has such a comment.
assert_told() { assert_at_least "packets of $1 with the comment /$2/" 1 "$(count_comments "$@")"; }

# assert_in_order NODE FILTER PATTERN...: comments that match follow each other in this order.
assert_in_order() {
    local node=$1 filter=$2 line wanted
    shift 2
    while read -r line; do
        wanted=${1-}
        [[ $# -eq 0 || ! $line =~ $wanted ]] || shift
    done < <(comments "$node" "$filter")
    [[ $# -eq 0 ]] || fail "$node: no packet after the others has the comment /$1/"
    ok "$node tells the connection's story in order"
}

assert_every_packet_is_explained() {
    local node=$1
    assert_at_least "packets that $node recorded" 20 "$(comments "$node" | wc -l)"
    assert_eq "packets of $node without a comment" 0 "$(comments "$node" | grep -c '^$' || true)"
    assert_eq "packets of $node with a wrong checksum" 0 \
        "$(read_recording "$node" -Y 'tcp.checksum.status == 0 || ip.checksum.status == 0' | wc -l)"
    assert_eq "packets of $node that tshark cannot read" 0 "$(read_recording "$node" -Y _ws.malformed | wc -l)"
}

say "a file that is no capture is not written over"
printf 'precious\n' >"$run_dir/a/recording.pcapng"
outcome=0
in_ns a "$BATON" run --node a --key "$run_dir/a/key" --socket "$run_dir/a/baton.sock" --pcap "$run_dir/a/recording.pcapng" \
    "$run_dir/cluster.yaml" >"$run_dir/refused" 2>&1 || outcome=$?
assert_eq "exit status" 3 "$outcome"
grep -q 'recording.pcapng exists and is no capture: choose another file' "$run_dir/refused" || fail "$(<"$run_dir/refused")"
assert_eq "the file" precious "$(<"$run_dir/a/recording.pcapng")"
rm "$run_dir/a/recording.pcapng"

say "a handed-off and a local connection, recorded on both servers"
# What goes past the process is not recorded.
RUN_OPTIONS="--bypass off --pcap $run_dir/a/recording.pcapng" start_baton a
RUN_OPTIONS="--pcap $run_dir/b/recording.pcapng" start_baton b
wait_for_peers
mark
fetch client a /images/picture
assert_answered b
assert_same_file "the answer" picture
handed_off_port=$local_port
fetch client a /elsewhere/picture
assert_answered a
assert_same_file "the local answer" picture
local_one=$local_port
assert_counts a.handed_off=1 b.accepted=1
assert_eq "mode of the recording" 600 "$(stat -c %a "$run_dir/a/recording.pcapng")"
stop_baton a
stop_baton b

for node in a b; do assert_every_packet_is_explained "$node"; done
assert_in_order a "tcp.port == $handed_off_port" '^client, a new connection: passed on' '^local kernel, to a client: passed on' \
    '^client \(handshake\): kept' 'decided by rule "images"; offered to b' 'purge: .*handed off to b' '^client \(handed-off\): forwarded to b' \
    '^client \(.*\): forwarded to b'
assert_in_order a "tcp.port == $local_one" '^client, a new connection: passed on' 'decided by rule "default"' \
    'withheld until now; the local server serves' '^client, a connection of the local server: passed on'
assert_in_order b "tcp.port == $handed_off_port" 'replayed SYN' 'local kernel, a connection served for a front-end \(replaying\): kept' \
    'first flight, delivered' 'served for a front-end \(.*\): translated: .*sequence numbers' \
    "^client, through the front-end ${host_of[a]//[\[\]]/.}:80 \(established\): translated"
# What left b for the client is there as the kernel sent it and as it went out.
assert_at_least "octets that b's kernel sent from an alias" 307200 \
    "$(read_recording b -Y "tcp.dstport == $handed_off_port && frame.packet_flags_direction == 1" -T fields -e tcp.len | awk '{ sum += $1 } END { print sum + 0 }')"
assert_at_least "octets that b translated for the client" 307200 \
    "$(read_recording b -Y "tcp.dstport == $handed_off_port && ip.addr == ${address_of[a4]} && frame.packet_flags_direction == 2" -T fields -e tcp.len | awk '{ sum += $1 } END { print sum + 0 }')"

say "the same checks, fed with what is wrong"
must_fail "nobody was reset" assert_told a 'reset: nobody'
must_fail "b decided nothing" assert_in_order b "tcp.port == $handed_off_port" 'decided by rule'
must_fail "this order is wrong" assert_in_order a "tcp.port == $handed_off_port" 'purge' 'a new connection'
"$PYTHON" - "$run_dir/b/recording.pcapng" <<'PYTHON'
import sys
octets = bytearray(open(sys.argv[1], "rb").read())
at = octets.index(b"\x45\x00")
octets[at + 24] ^= 1
open(sys.argv[1], "wb").write(octets)
PYTHON
must_fail "one bit of one packet is wrong" assert_every_packet_is_explained b

scenario_end
