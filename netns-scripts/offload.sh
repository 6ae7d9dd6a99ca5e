#!/usr/bin/env bash
# Transfers with super-segments of 64 KiB and without arrive as they were sent: handed off and local, down and up, for a
# client behind a router, over a link narrower than both ends believe, and where no device computes checksums.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/routed.sh
. "$scripts_dir/lib/routed.sh"
# shellcheck source=netns-scripts/lib/install.sh
. "$scripts_dir/lib/install.sh"
install_missing ethtool:ethtool tcpdump:tcpdump

topology_up a b
add_router
make_file large 200M
head -c 50M "$run_dir/www/large" >"$run_dir/www/upload"
head -c 2M "$run_dir/www/large" >"$run_dir/www/small"
start_applications
export FETCH_TIMEOUT=100
upload_hash=$(sha256sum <"$run_dir/www/upload" | cut -d ' ' -f 1)

handed_off='a.handed_off=1 b.accepted=1'
# A request of several segments, which come in one piece where there is offload.
printf -v long_header '%6000d' 0
long_request=(-H "X-Long: $long_header" -H "X-Longer: $long_header")

# download WHO PATH COUNTS [CURL OPTION...]: the file of that name, whole, from WHO.
download() {
    local counts
    read -ra counts <<<"$3"
    mark
    fetch far a "$2" "${@:4}"
    assert_answered "$1"
    assert_same_file "$2" "${2##*/}"
    assert_counts "${counts[@]}"
    say "        $seconds s"
}

# upload WHO PATH COUNTS
upload() {
    local counts
    read -ra counts <<<"$3"
    mark
    fetch far a "$2" -X POST -T "$run_dir/www/upload" -H 'Expect:'
    assert_answered "$1"
    assert_eq "hash of what arrived" "$upload_hash" "$(head -c 64 "$body")"
    assert_counts "${counts[@]}"
    say "        $seconds s"
}

transfers() {
    download b /images/large "$handed_off"
    download a /elsewhere/large ''
    upload b /images/upload "$handed_off"
    upload a /elsewhere/upload ''
    download b /images/small "$handed_off" "${long_request[@]}"
    download a /elsewhere/small '' "${long_request[@]}"
}

# super_segments NODE KIND: how many; KIND is read, written or cut.
super_segments() { stat_of "$1" "tun_super_segments_${2}_total"; }

assert_no_super_segments() {
    local kind
    for kind in read written cut; do
        assert_eq "super-segments $kind by $1" 0 "$(super_segments "$1" "$kind")"
    done
}

# assert_right_checksums PACKETS_MIN: in what `far` received, as tcpdump computes them.
assert_right_checksums() {
    local text=$run_dir/log/checksums.log
    tcpdump -r "$run_dir/far.pcap" -n -vv 'tcp and src port 80' >"$text" 2>/dev/null
    assert_at_least "segments from port 80" "$1" "$(grep -c 'cksum.*(correct)' "$text")"
    assert_eq "segments with a wrong checksum" 0 "$(grep -c incorrect "$text" || true)"
}

# capture_while COMMAND...: what `far` receives meanwhile, whole segments.
capture_while() {
    spawn far "$run_dir/log/tcpdump-far.log" tcpdump -i eth0 -Q in -n -U -Z root -B 65536 -w "$run_dir/far.pcap" tcp
    local pid=$spawned
    wait_until 10 grep -q 'listening on' "$run_dir/log/tcpdump-far.log"
    "${@}"
    sleep 1.2
    kill -INT "$pid"
    wait_until 20 process_gone "$pid"
    assert_eq "packets the capture missed" "0 packets dropped by kernel" "$(grep 'dropped by kernel' "$run_dir/log/tcpdump-far.log")"
}

# no_device_helps NAMESPACE DEVICE: checksums and segmentation are the kernel's own work, before the wire.
no_device_helps() { in_ns "$1" ethtool -K "$2" tx off tso off gso off gro off >/dev/null; }

say "with offload"
NO_VIDEOS=yes start_cluster
assert_eq "offload on a and b" "1 1" "$(stat_of a tun_offload) $(stat_of b tun_offload)"
transfers
assert_at_least "super-segments b read: the answer" 1000 "$(super_segments b read)"
assert_at_least "super-segments b wrote" 1000 "$(super_segments b written)"
assert_at_least "super-segments a read: the uploads" 100 "$(super_segments a read)"
assert_at_least "super-segments a cut for b" 100 "$(stat_of a overlay_super_segments_cut_total)"
assert_at_least "packets a sent to b in each call, on average" 4 \
    $(($(stat_of a overlay_sent_packets_total) / $(stat_of a overlay_send_calls_total)))
assert_at_least "packets that b joined again" 10000 "$(stat_of b overlay_joined_packets_total)"
assert_eq "super-segments that the kernel did not take" "0 0" "$(super_segments a cut) $(super_segments b cut)"

say "a link of 1280 octets behind the router"
before=$(wire errors router)
narrow far 1280
download b /images/small "$handed_off"
download a /elsewhere/small ''
assert_at_least "complaints of the router" 2 $(($(wire errors router) - before))
narrow far 1500
forget_path_mtus a b

say "no device computes checksums or cuts segments; what the client receives has right checksums"
for node in a b router; do no_device_helps "$node" eth0; done
no_device_helps router far
no_device_helps far eth0
capture_while download b /images/small "$handed_off"
assert_right_checksums 1400
download b /images/large "$handed_off"
upload b /images/upload "$handed_off"
upload a /elsewhere/upload ''
assert_eq "resets from any server" 0 "$(wire resets '*')"

must_fail "there were super-segments" assert_no_super_segments b

say "without offload"
for node in a b; do
    stop_baton "$node"
    in_ns "$node" ethtool -K eth0 tx on tso on gso on gro on >/dev/null
done
RUN_OPTIONS='--offload off' start_cluster
assert_eq "offload on a and b" "0 0" "$(stat_of a tun_offload) $(stat_of b tun_offload)"
transfers
assert_no_super_segments a
assert_no_super_segments b
assert_eq "super-segments a cut for b" 0 "$(stat_of a overlay_super_segments_cut_total)"

say "the same checks, fed with the wrong server, the wrong content and wrong checksums"
must_fail "b answers this" download a /images/small "$handed_off"
printf x | dd of="$run_dir/www/upload" bs=1 seek=12345678 conv=notrunc status=none
must_fail "one octet is different" upload a /elsewhere/upload ''
"$PYTHON" - "$run_dir/far.pcap" <<'PYTHON'
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(-1, 2)
    last = file.read(1)
    file.seek(-1, 2)
    file.write(bytes([last[0] ^ 1]))
PYTHON
must_fail "one octet of the capture is different" assert_right_checksums 1400

scenario_end
