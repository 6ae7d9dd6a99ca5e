#!/usr/bin/env bash
# SACK, timestamps, window scaling and ECN, each switched off at the front-end, at the back-end, at the client; window
# scales from 0 to 14 and windows of a few octets; clients that take small or huge segments. No segment ever uses what its
# client was not promised, or lacks what it was promised. A back-end that cannot keep a promise refuses, and the local
# server answers.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/settings.sh
. "$scripts_dir/lib/settings.sh"
# shellcheck source=netns-scripts/lib/install.sh
. "$scripts_dir/lib/install.sh"
install_missing ethtool:ethtool tcpdump:tcpdump

topology_up a b
make_file large 5M
make_file picture 1M
make_file small 300K
start_applications
NO_VIDEOS=yes start_cluster
# Servers send what the client gets: nothing is cut, and no checksum completed, only behind the place where it is watched.
for node in a b; do in_ns $node ethtool -K eth0 tx off tso off gso off >/dev/null; done
size=large
expectations=$run_dir/expectations

# --- the stage ----------------------------------------------------------------------------------------------------

# start_watching, and end_watching: the wire of the client, and what b's kernel says before it is translated.
start_watching() {
    start_capture client 'tcp port 80'
    spawn b "$run_dir/log/tcpdump-kernel.log" \
        tcpdump -i bt0 -n -U -Z root -s 120 -B 65536 --immediate-mode -w "$run_dir/kernel.pcap" "tcp src port 80 and ($alias_packets)"
    kernel_watcher=$spawned
    wait_until 10 grep -q 'listening on' "$run_dir/log/tcpdump-kernel.log"
}
end_watching() {
    stop_capture client
    kill -INT "$kernel_watcher"
    wait_until 20 process_gone "$kernel_watcher"
}

# case_of LABEL OUTCOME AGREED SETTING...: a download, an upload and a local request of a client, with these settings.
# OUTCOME is `handed-off` or `refused`; AGREED is what SYN and SYN-ACK must agree on.
case_of() {
    local label=$1 outcome=$2 agreed=$3 server=b file=$size counts='a.handed_off=2 b.accepted=2'
    shift 3
    say "$label: $outcome"
    set_at "$@"
    [[ $outcome == handed-off ]] || { server=a counts='a.fallback.refused_promise=2' file=small; }
    mark
    fetch client a "/images/$file"
    assert_answered $server
    assert_same_file "        down" "$file"
    echo "$local_port $agreed" >>"$expectations"
    port_of_download=$local_port
    fetch client a /images/upload -H 'Expect:' -X POST -T "$run_dir/www/$file"
    assert_answered $server
    assert_eq "        up, hash of what arrived" "${hash_of[$file]}" "$(head -c 64 "$body")"
    echo "$local_port $agreed" >>"$expectations"
    port_of_upload=$local_port
    fetch client a /elsewhere/small
    assert_answered a
    assert_same_file "        local" small
    echo "$local_port $agreed" >>"$expectations"
    # shellcheck disable=SC2086 # one word per count
    assert_counts $counts
    usual
}
downloads_with_ecn=() uploads_with_ecn=()
declare -A hash_of
for file in large picture small; do hash_of[$file]=$(sha256sum <"$run_dir/www/$file" | cut -d ' ' -f 1); done

# check_watched [EXPECTATIONS]: all of what was watched.
check_watched() { "$PYTHON" "$scripts_dir/tools/promises.py" check "$run_dir/capture-client.pcap" "$expectations" "$run_dir/kernel.pcap"; }

# --- on the wire --------------------------------------------------------------------------------------------------

usual
start_watching
all='sack=yes timestamps=yes scale=7'

case_of "nothing changed" handed-off "$all ecn=no"
size=picture
case_of "no SACK at the front-end" handed-off 'sack=no timestamps=yes scale=7' a:tcp_sack=0
case_of "no SACK at the back-end" refused "$all" b:tcp_sack=0
case_of "no SACK at the client" handed-off 'sack=no timestamps=yes scale=7' client:tcp_sack=0
case_of "no timestamps at the front-end" handed-off 'sack=yes timestamps=no scale=7' a:tcp_timestamps=0
case_of "no timestamps at the back-end" refused "$all" b:tcp_timestamps=0
case_of "no timestamps at the client" handed-off 'sack=yes timestamps=no scale=7' client:tcp_timestamps=0
case_of "no window scaling at the front-end" handed-off 'sack=yes timestamps=yes scale=no' a:tcp_window_scaling=0
case_of "no window scaling at the back-end" refused "$all" b:tcp_window_scaling=0
case_of "no window scaling at the client" handed-off 'sack=yes timestamps=yes scale=no' client:tcp_window_scaling=0
case_of "nothing of all that at the back-end, nor at the client" handed-off 'sack=no timestamps=no scale=no' \
    {b,client}:tcp_{sack,timestamps,window_scaling}=0

# ecn_of PORT...: what became of the marks that the switch put on these connections' packets.
ecn_of() { "$PYTHON" "$scripts_dir/tools/promises.py" ecn "$run_dir/capture-client.pcap" "$@"; }

# The switch marks some of the packets that may be marked, as a router does that is about to be congested. Those of the
# client are large ones, which are cut only later.
if [[ $FAMILY == 4 ]]; then ecn='ip ecn'; else ecn='ip6 ecn'; fi
in_ns switch nft -f - <<NFT
table bridge congested {
  chain passes {
    type filter hook forward priority 5;
    tcp dport 80 $ecn { ect0, ect1 } numgen inc mod 5 == 0 $ecn set ce
    tcp sport 80 $ecn { ect0, ect1 } numgen inc mod 50 == 0 $ecn set ce
  }
}
NFT
for asking in 'b:tcp_ecn=2' 'a:tcp_ecn=1 b:tcp_ecn=1'; do
    # shellcheck disable=SC2086 # one word per setting
    case_of "ECN, $asking" handed-off "$all ecn=yes" client:tcp_ecn=1 $asking
    downloads_with_ecn+=("$port_of_download") uploads_with_ecn+=("$port_of_upload")
done
case_of "ECN off at the front-end" handed-off "$all ecn=no" client:tcp_ecn=1 a:tcp_ecn=0
case_of "ECN off at the back-end" refused "$all ecn=yes" client:tcp_ecn=1 b:tcp_ecn=0
case_of "ECN off at the client" handed-off "$all ecn=no" client:tcp_ecn=0 {a,b}:tcp_ecn=1
# A client that asks for accurate ECN (RFC 9768) sets AE as well; here the switch does. It gets ECN of RFC 3168, to which
# such a client falls back, whatever the servers' kernels know: baton takes AE out of the SYN.
in_ns switch nft -f - <<'NFT'
table bridge accurate {
  counter syns { }
  chain enters {
    type filter hook prerouting priority 0;
    iifname "client" tcp doff 10 tcp flags == (syn | ecn | cwr) counter name syns @th,96,16 set 0xa1c2
  }
}
NFT
# Kernels that know accurate ECN themselves have more values.
for ecn in 2 $(if (set_at a:tcp_ecn=3) 2>/dev/null; then echo 3; fi); do
    case_of "accurate ECN, $ecn at both servers" handed-off "$all ecn=yes" client:tcp_ecn=1 {a,b}:tcp_ecn="$ecn"
    downloads_with_ecn+=("$port_of_download") uploads_with_ecn+=("$port_of_upload")
    case_of "accurate ECN, off at the back-end" refused "$all ecn=yes" client:tcp_ecn=1 a:tcp_ecn="$ecn" b:tcp_ecn=0
done
assert_at_least "SYNs that asked for accurate ECN" 6 "$(in_ns switch nft list counter bridge accurate syns | awk '$1 == "packets" { print $2 }')"
in_ns switch nft delete table bridge accurate

case_of "window scale 7 from a, 14 from b" handed-off "$all" "b:$(scale 14)"
case_of "window scale 12 from a, 7 from b" handed-off "sack=yes timestamps=yes scale=12" "a:$(scale 12)"
case_of "window scale 13 from a, 7 from b" refused "sack=yes timestamps=yes scale=13" "a:$(scale 13)"
case_of "window scale 14 from a, 7 from b" refused "sack=yes timestamps=yes scale=14" "a:$(scale 14)"
case_of "window scale 14 from both" handed-off "sack=yes timestamps=yes scale=14" {a,b}:"$(scale 14)"
# A connection that was parked is replayed to the very kernel that made the promise.
set_at {a,b}:"$(scale 14)"
mark
tool client load silent "${address_of[a]}" --connections 2 --silence 3 --body "$run_dir/www/small" \
    --expect /elsewhere/small=a --expect /images/small=b >/dev/null || fail "a client that is silent at first"
assert_counts a.handed_off=1 b.accepted=1
assert_eq "replays to self" 1 "$(stat_of a replays_to_self_total)"
usual
case_of "window scale 14 from a, none from b" refused "sack=yes timestamps=yes scale=14" "a:$(scale 14)" b:tcp_window_scaling=0
ip -n "$(namespace a)" route add "$client_address" dev eth0 window 65535
case_of "window scale 0 from a, 7 from b" handed-off "sack=yes timestamps=yes scale=0"
case_of "window scale 0 from a, 14 from b" handed-off "sack=yes timestamps=yes scale=0" "b:$(scale 14)"
ip -n "$(namespace a)" route del "$client_address"

size=small
stop_nginx b
start_nginx b '511 rcvbuf=4k'
case_of "window scale 7 from a, windows of a few octets and scale 0 from b" handed-off "$all"
case_of "window scale 10 from a, windows of a few octets and scale 0 from b" refused "sack=yes timestamps=yes scale=10" "a:$(scale 10)"
ip -n "$(namespace a)" route add "$client_address" dev eth0 window 65535
case_of "window scale 0 from a, windows of a few octets from b" handed-off "sack=yes timestamps=yes scale=0"
ip -n "$(namespace a)" route del "$client_address"
stop_nginx b
start_nginx b '511 rcvbuf=32k'
case_of "window scale 14 from a, 0 from b" refused "sack=yes timestamps=yes scale=14" "a:$(scale 14)"
case_of "window scale 7 from a, 0 from b" handed-off "$all"
stop_nginx b
start_nginx b
size=picture

for mss in 536 1200; do
    ip -n "$(namespace client)" route add "${address_of[a]}" dev eth0 advmss $mss
    case_of "a client that takes segments of $mss octets" handed-off "$all mss=$mss"
    ip -n "$(namespace client)" route del "${address_of[a]}"
done
ip -n "$(namespace client)" link set eth0 mtu 9000
ip -n "$(namespace switch)" link set client mtu 9000
case_of "a client that takes segments of 9000 octets with their headers" handed-off "$all mss=$((FAMILY == 4 ? 8960 : 8940))"
ip -n "$(namespace client)" link set eth0 mtu 1500

end_watching
check_watched || fail "see above"
# What is downloaded is marked on its way to the client, what is uploaded on its way to the server.
down='marked=yes echoed-by-client=yes reduced-by-server=yes' up='echoed-by-server=yes reduced-by-client=yes'
echoed=$(ecn_of "${downloads_with_ecn[@]}")
assert_eq "downloads of which marks slowed the server down" "${#downloads_with_ecn[@]}" "$(grep -c "^$down" <<<"$echoed")"
echoed=$(ecn_of "${uploads_with_ecn[@]}")
assert_eq "uploads of which marks slowed the client down" "${#uploads_with_ecn[@]}" "$(grep -c "$up\$" <<<"$echoed")"
mapfile -t without_ecn < <(awk '/ecn=no/ { print $1 }' "$expectations")
echoed=$(ecn_of "${without_ecn[@]}")
must_fail "nothing marked the others" grep -q yes <<<"$echoed"

# --- the same checks, fed with what is wrong ----------------------------------------------------------------------

say "the same checks, fed with segments that were never promised"
# only_port PORT: what was watched of one connection, and what was expected of it.
only_port() {
    grep "^$1 " "$expectations" >"$run_dir/expected-one"
    tcpdump -r "$run_dir/capture-client.pcap" -w "$run_dir/one.pcap" "port $1" 2>/dev/null
    tcpdump -r "$run_dir/kernel.pcap" -w "$run_dir/one-kernel.pcap" "port $1" 2>/dev/null
}
check_one() { "$PYTHON" "$scripts_dir/tools/promises.py" check "$run_dir/$1.pcap" "$run_dir/expected-one" "$run_dir/one-kernel.pcap"; }
# spoiled WHAT PORT WHY
spoiled() {
    "$PYTHON" "$scripts_dir/tools/promises.py" spoil "$run_dir/one.pcap" "$run_dir/spoiled.pcap" "$1" "$2"
    must_fail "$3" check_one spoiled
}
read -r port _ < <(grep 'sack=no timestamps=yes scale=7' "$expectations")
only_port "$port"
check_one one
spoiled sack "$port" "SACK blocks nobody permitted"
spoiled timestamps "$port" "a segment without the timestamps that were agreed on"
spoiled answer "$port" "timestamps on a connection that agreed on none"
spoiled scale "$port" "a window scale in the midst"
spoiled echo "$port" "ECE without ECN"
spoiled accurate "$port" "AE"
spoiled capable "$port" "ECT without ECN"
spoiled clock "$port" "a clock that goes back"
spoiled length "$port" "more than the client takes"
spoiled window "$port" "a window larger than the kernel's"
spoiled zero "$port" "a window that stays 0"
for word in sack=yes timestamps=no scale=8 ecn=yes mss=536; do
    echo "$port $word" >"$run_dir/expected-one"
    must_fail "$word was not agreed" check_one one
done
echo "1 sack=yes" >"$run_dir/expected-one"
must_fail "no such connection" check_one one

scenario_end
