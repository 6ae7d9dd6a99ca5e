#!/usr/bin/env bash
# A path that takes smaller packets from one moment to the next, in the middle of a transfer: what the router says about a
# handed-off connection reaches the server that sends, whose kernel believes it as for a connection of its own, and the
# transfer goes on; what somebody else says about it changes nothing (RFC 5927). And a path that says nothing at all (a black
# hole): the kernel's own probing finds its size (RFC 4821). Each without baton, with it and local, and handed off.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/routed.sh
. "$scripts_dir/lib/routed.sh"
# shellcheck source=netns-scripts/lib/oracle.sh
. "$scripts_dir/lib/oracle.sh"

topology_up a b
make_file small 2K
make_file picture 200K
# More than sockets and pipes hold.
make_file film 16M
make_file clip 4M
hash_of() { sha256sum <"$run_dir/www/$1" | cut -d ' ' -f 1; }
start_applications
add_router
oracle_ready
in_ns router ethtool -K far tx off tso off gso off gro off >/dev/null
complete_checksums router far
# A lost packet too big for the path is believed to be one after one repetition, not after three.
for node in a b; do in_ns "$node" sh -c 'echo 1 >/proc/sys/net/ipv4/tcp_retries1'; done
export NO_VIDEOS=yes CAPTURE_EACH=yes ORACLE_PLACE=far

# --- the path ---------------------------------------------------------------------------------------------------------------

# widen: as in the beginning, and nobody remembers.
widen() {
    narrow far 1500
    narrow eth0 1500
    forget_path_mtus "${nodes[@]}" far
}
declare -A alias_of=([4]=198.18.0.1 [6]=fd00:ba70::1)
# learned: the path MTU that the kernel of who answers remembers for what it sends to the client.
learned() {
    local from=${address_of[a]}
    [[ $server == a ]] || from=${alias_of[$FAMILY]}
    in_ns "$server" ip route get "${address_of[far]}" from "$from" | grep -o 'mtu [0-9]*' || true
}
learned_by_the_client() { in_ns far ip route get "${address_of[a]}" | grep -o 'mtu [0-9]*' || true; }
# in_two_parts COMMAND...: puts out what it reads, and after the first megabyte lets COMMAND happen. Who writes to it, or reads
# from it, waits meanwhile.
in_two_parts() {
    head -c 1M
    sleep 0.3
    "$@"
    cat
}
# download_in_parts COMMAND...: the client reads no more until COMMAND is done.
download_in_parts() {
    local answer=$run_dir/transfer
    in_ns far curl -sS --noproxy '*' --max-time 30 -D "$answer.headers" -w '%{stderr}%{http_code} %{local_port}' \
        "http://${host_of[a]}$content/film" 2>"$answer.line" | in_two_parts "$@" >"$answer"
    transfer_ends
}
# upload_in_parts COMMAND...: the client has no more to send until COMMAND is done.
upload_in_parts() {
    local answer=$run_dir/transfer
    in_two_parts "$@" <"$run_dir/www/clip" | in_ns far curl -sS --noproxy '*' --max-time 30 -D "$answer.headers" -o "$answer" \
        -w '%{stderr}%{http_code} %{local_port}' -X POST -T - -H 'Expect:' "http://${host_of[a]}$content/upload" 2>"$answer.line"
    transfer_ends
}
transfer_ends() {
    read -r status local_port <"$run_dir/transfer.line" || true
    answered_by=$(header X-Server "$run_dir/transfer.headers")
    body=$run_dir/transfer
    assert_answered "$server"
}

# --- the courses ------------------------------------------------------------------------------------------------------------

prepare_download() { widen; }
download() {
    local errors
    assert_eq "what $server has learned before" "" "$(learned)"
    errors=$(wire errors router)
    download_in_parts narrow far 1300
    assert_eq "hash of what arrived" "$(hash_of film)" "$(sha256sum <"$body" | cut -d ' ' -f 1)"
    errors_of[$way]=$(($(wire errors router) - errors))
    assert_at_least "errors from the router" 1 "${errors_of[$way]}"
    assert_eq "what $server has learned" "mtu 1300" "$(learned)"
}
# All that the client has under way when the path narrows is lost; how much that is, is chance, so there are some, and their
# medians are compared.
uploads=${UPLOADS:-5}
upload() {
    local number
    for ((number = 0; number < uploads; number++)); do
        widen
        upload_in_parts narrow eth0 1300
        assert_eq "hash of what arrived" "$(hash_of clip)" "$(head -c 64 "$body")"
        assert_eq "what the client has learned" "mtu 1300" "$(learned_by_the_client)"
        ports+=("$local_port")
    done
    narrow eth0 1500
}
# repeated NAME: what the client of each connection has sent more than once, in order of size.
repeated() {
    local port
    for port in $(tr , ' ' <"$run_dir/oracle-$1.ports"); do
        oracle_of classes "$1" "$port" | grep -o 'client.repeated=[0-9]*' || echo client.repeated=0
    done | cut -d = -f 2 | sort -n
}
# median NAME
median() { repeated "$1" | sed -n $(((uploads + 1) / 2))p; }
assert_median_no_worse_than() {
    assert_at_most "segments that clients repeated, in the median of $(repeated "$1" | xargs) [$1] and $(repeated "$2" | xargs) [$2]" \
        $((5 * $(median "$2") / 4 + 10)) "$(median "$1")"
}
# Without errors; see RFC 2923, section 2.1. The kernel tries smaller segments only if it is told to.
probing() { for node in a b; do in_ns "$node" sh -c "echo $1 >/proc/sys/net/ipv4/tcp_mtu_probing"; done; }
router_is() {
    if [[ $1 == silent ]]; then
        in_ns router nft -f - <<'END'
table inet silent {
  chain leaves {
    type filter hook output priority 0;
    icmp type destination-unreachable drop
    icmpv6 type packet-too-big drop
  }
}
END
    else
        in_ns router nft delete table inet silent
    fi
}
prepare_black_hole() {
    widen
    narrow far 1300
    router_is silent
    probing 1
}
black_hole() {
    fetch far a "$content/picture"
    assert_answered "$server"
    assert_same_file "the answer" picture
    assert_eq "what $server has learned" "" "$(learned)"
    seconds_of[$way]=$seconds
}
finish_black_hole() {
    router_is talkative
    probing 0
}
declare -A seconds_of=() errors_of=()

three_ways download upload black_hole
say "compared"
for way in local handed-off; do
    # The error takes the way by the front-end, so that more may be under way before it arrives: each of that has its own.
    assert_no_worse_than "download-$way" download-without 1.5 $((40 + 2 * errors_of[$way]))
    assert_median_no_worse_than "upload-$way" upload-without
    assert_no_worse_than "upload-$way" upload-without 1.5 $((20 * uploads))
    # A round or two of probing more or less.
    assert_no_worse_than "black_hole-$way" "black_hole-without" 2 10
done
say "segments the router complained of: ${errors_of[without]} without, ${errors_of[local]} local, ${errors_of[handed-off]} handed off"
say "seconds through the black hole: ${seconds_of[without]} without, ${seconds_of[local]} local, ${seconds_of[handed-off]} handed off"
assert_at_most "milliseconds handed off" $(("$("$PYTHON" -c "print(int(2000 * ${seconds_of[without]}))")" + 1000)) \
    "$("$PYTHON" -c "print(int(1000 * ${seconds_of[handed-off]}))")"

# --- what somebody says -----------------------------------------------------------------------------------------------------

say "errors about a handed-off connection, forged and true"
widen
server=b
refused_icmp() { in_ns b nstat -asz TcpExtOutOfWindowIcmps | awk '$1 == "TcpExtOutOfWindowIcmps" { print $2 }'; }
oracle_capture watched far
mark
spawn far "$run_dir/visit" "$PYTHON" "$scripts_dir/tools/slow.py" "${address_of[a]}" /images/small --keep 30
visitor=$spawned
wait_until 5 test -s "$run_dir/visit"
oracle_end watched
port=$("$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["port"])' "$run_dir/visit")
# What the client has acknowledged last is what the server sends next.
next=$(tshark -n -r "$run_dir/capture-oracle-watched.pcap" -Y "tcp.srcport == $port && tcp.flags.ack == 1" -T fields -e tcp.ack_raw 2>/dev/null | tail -n 1)
assert_counts a.handed_off=1 b.accepted=1
open_at_b() { in_ns b ss -Htn state established "dst ${host_of[far]} and dport = :$port" | wc -l; }
# say_of_it KIND SEQ...
say_of_it() { tool router icmp_error "$1" "${address_of[a]}" "${address_of[far]}" "$port" "${@:2}"; }
before=$(refused_icmp)
for away in 100000 -3000000 2000000000; do
    say_of_it too-big $((next + away)) --mtu 1300
    say_of_it refused $((next + away))
done
all_refused() { [[ $(($(refused_icmp) - before)) -eq 6 ]]; }
wait_until 5 all_refused
assert_eq "forged errors that b's kernel has seen through" 6 $(($(refused_icmp) - before))
assert_eq "what b has learned from forged errors" "" "$(learned)"
assert_eq "the connection, at b" 1 "$(open_at_b)"
say_of_it too-big "$next" --mtu 1350
has_learned() { [[ $(learned) == "mtu 1350" ]]; }
wait_until 5 has_learned
assert_eq "what b has learned from a true one" "mtu 1350" "$(learned)"
must_fail "it has learned 1350" assert_eq "what b has learned" "mtu 1300" "$(learned)"
kill -TERM "$visitor"

say "the same checks, fed with what is wrong"
widen
prepare_black_hole
probing 0
FETCH_TIMEOUT=4 fetch far a /images/picture
must_fail "nobody probes" assert_same_file "the answer" picture
finish_black_hole
widen
way=handed-off content=/images
must_fail "the path stays as it was" eval 'narrow() { :; }; download'
in_ns switch nft -f - <<'END'
table bridge lossy {
  chain passes {
    type filter hook forward priority 10;
    iifname "a" oifname "b" meta l4proto udp numgen random mod 100 < 5 drop
  }
}
END
ports=()
oracle_capture upload-lossy
upload
oracle_end upload-lossy
lose_no_more_packets
(IFS=, && printf '%s' "${ports[*]}") >"$run_dir/oracle-upload-lossy.ports"
must_fail "of what clients send a server loses one in twenty" assert_median_no_worse_than upload-lossy upload-without
must_fail "this path is no black hole" assert_no_worse_than black_hole-handed-off upload-without 1 0

scenario_end
