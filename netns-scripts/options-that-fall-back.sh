#!/usr/bin/env bash
# Clients that ask for more than others: TCP Fast Open and Multipath TCP get plain TCP through baton, as both RFCs let a
# server do, and no request is served twice; connections signed by MD5 are served where they arrive; options nobody knows, any
# MSS and any MTU change nothing. Type of service, hop limit and flow label as the client sees them.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/alike.sh
. "$scripts_dir/lib/alike.sh"

BACKLOG='511 fastopen=16' alike_up
# Of IP and TCP; and of what carries a client's packet between servers.
headers=$((FAMILY == 4 ? 40 : 60)) overhead=$((FAMILY == 4 ? 56 : 76))
make_file picture 10K
make_file large 500K
# Large frames between servers; the client's are of 1500 octets at first.
for node in a b c; do
    ip -n "$(namespace $node)" link set eth0 mtu 9000
    ip -n "$(namespace switch)" link set dev $node mtu 9000
done
ip -n "$(namespace switch)" link set dev client mtu 9000
for node in a b c client; do in_ns $node sh -c 'echo 3 >/proc/sys/net/ipv4/tcp_fastopen'; done

# counted NODE NAME: one of the kernel's counters.
counted() { in_ns "$1" nstat -asz "$2" | awk -v name="$2" '$1 == name { print $2 }'; }
fast_open_counters() { for node in a b c; do printf '%s=%s ' $node "$(counted $node TcpExtTCPFastOpenPassive)"; done; }

let_raw_connections_live

# courses_now NAME [NAME=VALUE...]: one course of each way, now.
courses_now() {
    : >"$courses"
    course "$1" picture "${@:2}"
    run_courses
    all_courses+=$(<"$courses")$'\n'
}
all_courses=

say "TCP Fast Open: a cookie from the time before baton"
sed -i 's/ b / a /' "$courses"
for node in a c; do
    tool client alike cookie "${address_of[$node]}"
    assert_eq "cookie of $node" yes "$(in_ns client ip tcp_metrics show "${address_of[$node]}" | grep -q fo_cookie && echo yes)"
done
cookie=$(in_ns client ip tcp_metrics show "${address_of[a]}" | grep -o 'fo_cookie [0-9a-f]*' | cut -d ' ' -f 2)
passive=$(counted a TcpExtTCPFastOpenPassive)
NO_VIDEOS=yes start_cluster
oracle_capture courses
for number in 1 2; do
    mark
    courses_now "cookie-from-before-$number" option=fast-open
    assert_counts a.handed_off=1 b.accepted=1
done
assert_eq "connections that the server without baton opened by a cookie" 2 "$(counted c TcpExtTCPFastOpenPassive)"

say "TCP Fast Open: clients that ask for a cookie, by the RFC's option and by that of the experiment before"
in_ns client ip tcp_metrics flush all >/dev/null
for number in 1 2 3 4; do
    mark
    courses_now "cookie-$number" option=fast-open
    assert_counts a.handed_off=1 b.accepted=1
done
assert_eq "connections opened by a cookie, on c, a and b" "5 $passive 0" \
    "$(counted c TcpExtTCPFastOpenPassive) $(counted a TcpExtTCPFastOpenPassive) $(counted b TcpExtTCPFastOpenPassive)"

say "the experiment's cookie in a SYN without data, made by hand"
hash=$(sha256sum <"$run_dir/www/picture" | cut -d ' ' -f 1)
port=5000
# by_hand PATH [OPTION...]: one request by a TCP made by hand; the answer in `answer`.
by_hand() {
    local path=$1
    shift
    port=$((port + 1))
    answer=$(tool client rawtcp request "${to:-${address_of[a]}}" "$path" --source-port "$port" --order 1,2,3 --mss $((1500 - headers)) "$@")
}
field() { "$PYTHON" -c 'import json, sys; print(json.loads(sys.argv[1])[sys.argv[2]])' "$answer" "$1"; }
assert_whole_answer_from() {
    assert_eq "answered by, status, hash, finished, reset, outside the window" "$1 200 $hash True False 0" \
        "$(field answered_by) $(field status) $(field sha256) $(field finished) $(field reset) $(field outside_window)"
}
mark
by_hand /images/picture --syn-options "fe0cf989$cookie"
assert_whole_answer_from b
assert_counts a.handed_off=1 b.accepted=1
# Kinds 34, 254 and 30 are in no SYN-ACK, each behind the ones that were agreed on: MSS, SACK, timestamps and scale are 20 octets.
assert_eq "octets of options in the SYN-ACK" 20 $(($(field syn_ack_options | wc -c) / 2))
assert_eq "connections opened by a cookie, on a and b" "$passive 0" "$(counted a TcpExtTCPFastOpenPassive) $(counted b TcpExtTCPFastOpenPassive)"

oracle_end courses

say "options nobody knows, and any MSS"
# three_by_hand LARGEST OPTION...: without baton, with it, and handed off; the largest segment has LARGEST octets.
three_by_hand() {
    local largest=$1 way
    shift
    for way in c:/elsewhere a:/elsewhere b:/images; do
        to=${address_of[a]}
        [[ $way != c:* ]] || to=${address_of[c]}
        mark
        by_hand "${way#*:}/picture" "$@"
        assert_whole_answer_from "${way%%:*}"
        if [[ $way == b:* ]]; then assert_counts a.handed_off=1 b.accepted=1; else assert_counts; fi
        assert_eq "largest segment" "$largest" "$(field largest)"
    done
    to=
}
default_mss=$((FAMILY == 4 ? 536 : 1220))
three_by_hand $((1500 - headers - 12)) --syn-options c804aabbc902 --options c804aabbc902
three_by_hand 524 --mss 536
three_by_hand 76 --mss 88
three_by_hand $((default_mss - 12)) --mss none
must_fail "another MSS" three_by_hand 76 --mss 89

say "a client that takes frames of 1280, 1500 and 9000 octets"
# mss_of DIRECTION WAY: what the SYNs (src) or SYN-ACKs (dst) of a way say.
mss_of() {
    local ports
    ports=$(awk -v way="$2" '$2 == way { print $4 }' "$courses" | xargs | tr ' ' ,)
    tshark -n -r "$run_dir/capture-oracle-courses.pcap" -Y "tcp.flags.syn == 1 && tcp.${1}port in {$ports}" \
        -T fields -e tcp.options.mss_val 2>/dev/null | sort -u | xargs
}
for mtu in 1280 1500 9000; do
    ip -n "$(namespace client)" link set eth0 mtu $mtu
    mark
    oracle_capture courses
    : >"$courses"
    course "mtu-$mtu-down" large
    course "mtu-$mtu-up" upload upload=500000
    run_courses
    assert_counts a.handed_off=2 b.accepted=2
    oracle_end courses
    # How far one end was ahead of the other is chance, and how two processors of a kernel keep the order.
    BEYOND=yes assert_alike 'mtu*:'{client,server}.{window_full,zero_window,duplicate_ack}
    # Of the client's MSS nothing is taken. Servers behind baton take a little less, for the overlay's sake: what the client
    # sends has to fit into a packet between servers.
    assert_eq "MSS in all SYNs, mtu $mtu" $((mtu - headers)) "$(for way in bare local handed-off; do mss_of src $way; done | sort -u | xargs)"
    promised=$(mss_of dst local)
    assert_eq "MSS in SYN-ACKs, without baton and handed off" "$((9000 - headers)) $promised" "$(mss_of dst bare) $(mss_of dst handed-off)"
    assert_eq "octets less than without baton" "$overhead" $((9000 - headers - promised))
done
ip -n "$(namespace client)" link set eth0 mtu 1500

# --- servers that know more ---------------------------------------------------------------------------------------

# listen_by OPTION...: tools/listener.py instead of nginx, on every server.
listening=()
listen_by() {
    local node pid
    for pid in "${listening[@]}"; do kill "$pid"; wait_until 5 process_gone "$pid"; done
    listening=()
    for node in a b c; do
        [[ -z $(in_ns $node ss -Hltn 'sport = :80') ]] || stop_nginx $node
        spawn $node "$run_dir/log/listener-$node.log" "$PYTHON" "$scripts_dir/tools/listener.py" $node "$run_dir/www/picture" \
            "$run_dir/log/nginx-$node.access.log" "$@"
        listening+=("$spawned")
    done
    for node in a b c; do wait_until 10 listening $node 80; done
}
# once_more COUNTER: of a kernel, since `counted_before`.
kernel_counts() { local node; for node in a b c client; do counted $node "$1"; done | xargs; }

say "Multipath TCP, with servers that have it"
listen_by --multipath --tos 40
in_ns client ip tcp_metrics flush all >/dev/null
oracle_capture courses
: >"$courses"
mark
course multipath picture option=multipath
course plain picture tos=72
course multipath-twice picture option=multipath requests=2 closes=client
run_courses
assert_counts a.handed_off=3 b.accepted=3
# MP_CAPABLE in a SYN-ACK: from the server without baton alone.
assert_eq "Multipath TCP is agreed on by a, b, c and the client" "0 0 2 2" \
    "$(kernel_counts MPTcpExtMPCapableACKRX | cut -d ' ' -f 1-3) $(counted client MPTcpExtMPCapableSYNACKRX)"
assert_eq "fallen back at the client" 4 "$(counted client MPTcpExtMPCapableFallbackSYNACK)"
oracle_end courses
# What Multipath TCP itself does on the wire, tshark takes for repeated acknowledgements.
assert_alike 'multipath*:client.duplicate_ack' 'multipath*:server.duplicate_ack'
# type_of_service WHO WAY: what the wire saw of the course `plain`.
type_of_service() {
    local port direction=dst
    port=$(awk -v way="$2" '$1 == "plain" && $2 == way { print $4 }' "$courses")
    [[ $1 == client ]] && direction=src
    tshark -n -r "$run_dir/capture-oracle-courses.pcap" -Y "tcp.${direction}port == $port && tcp.len > 0" -T fields -e ip.dsfield -e ipv6.tclass 2>/dev/null | sort -u | xargs
}
for way in bare local handed-off; do
    assert_eq "type of service, $way, of what the client sends and gets" "0x48 0x28" \
        "$(for who in client server; do type_of_service $who $way; done | sed 's/0x000000/0x/' | xargs)"
done

# What differs: what the process hands to the kernel is forwarded, and that takes one from the hop limit.
# hops_of WAY: of what the client gets: the SYN-ACK, then the rest.
hops_of() {
    local port what
    port=$(awk -v way="$1" '$1 == "plain" && $2 == way { print $4 }' "$courses")
    for what in '== 1' '== 0'; do
        tshark -n -r "$run_dir/capture-oracle-courses.pcap" -Y "tcp.dstport == $port && tcp.flags.syn $what" -T fields -e ip.ttl -e ipv6.hlim 2>/dev/null | sort -u
    done | xargs
}
assert_eq "hop limits of SYN-ACK and the rest: without baton, with it, handed off" "64 64, 63 64, 63 63" \
    "$(hops_of bare), $(hops_of local), $(hops_of handed-off)"
if [[ $FAMILY == 6 ]]; then
    for way in bare local handed-off; do
        port=$(awk -v way=$way '$1 == "plain" && $2 == way { print $4 }' "$courses")
        say "        flow labels, $way: $(tshark -n -r "$run_dir/capture-oracle-courses.pcap" -Y "tcp.dstport == $port" -T fields -e ipv6.flow 2>/dev/null | uniq -c | xargs)"
    done
fi

say "TCP-MD5"
signed=${address_of[client]}1
if [[ $FAMILY == 4 ]]; then signed=10.77.0.101; fi
# Deprecated: only who asks for it has this address (RFC 6724, section 5, rule 3); else the kernel would choose it over IPv6, and
# what is not signed would come from it.
ip -n "$(namespace client)" address add "$signed/$((FAMILY == 4 ? 24 : 64))" dev eth0 preferred_lft 0
listen_by --md5 "$signed"
oracle_capture courses
: >"$courses"
mark
PEER_ANSWERS=a course signed picture from="$signed" option=md5
PEER_ANSWERS=a course signed-twice picture from="$signed" option=md5 requests=2 pause=0.1 closes=client
course unsigned picture
run_courses
assert_counts a.handed_off=1 b.accepted=1
oracle_end courses
assert_alike 'none:none'
: >"$courses"
PEER_ANSWERS=a course signed picture from="$signed"
ALIKE_TIMEOUT=1 must_fail "a connection that is not signed gets no answer" run_courses

scenario_end
