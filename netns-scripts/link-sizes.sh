#!/usr/bin/env bash
# Links that take 1280 or 9000 octets, and a way between the servers that takes less than the other links: the MSS that a client
# is told leaves room for the overlay, nothing is fragmented, nobody has to complain of a packet, and a download and an upload
# at the same time arrive whole. Each without baton, with it and local, and handed off.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/oracle.sh
. "$scripts_dir/lib/oracle.sh"
# shellcheck source=netns-scripts/lib/exchange.sh
. "$scripts_dir/lib/exchange.sh"
: "${SIZE:=10M}"

topology_up a b
make_file large "$SIZE"
start_applications
oracle_ready
[[ $SIZE != ??M ]] || export CAPTURE_LARGE=yes
export NO_VIDEOS=yes BATON_RUST_LOG=baton=info CAPTURE_EACH=yes
in_ns switch nft -f - <<'END'
table bridge pieces {
  counter fragments { }
  chain enters {
    type filter hook prerouting priority -250;
    ip frag-off & 0x3fff != 0 counter name fragments
    ip6 nexthdr 44 counter name fragments
  }
}
END
fragments() { in_ns switch nft list counter bridge pieces fragments | awk '$1 == "packets" { print $2 }'; }
# links MTU NAME...: both ends of their wires.
links() {
    local mtu=$1 name
    shift
    ip -n "$(namespace switch)" link set dev br0 mtu "$mtu"
    for name in "$@"; do
        ip -n "$(namespace switch)" link set dev "$name" mtu "$mtu"
        ip -n "$(namespace "$name")" link set dev eth0 mtu "$mtu"
    done
}
# IP and TCP in front of a client's octets, and what the overlay adds: IP, UDP, its header and seal.
headers=40 overhead=$((20 + 8 + 28))
[[ $FAMILY == 4 ]] || headers=60 overhead=$((40 + 8 + 28))

exchange() { both_ways large; }
# case_of LABEL WIDEST BETWEEN: how large packets of any link, and of the way between the servers, may be.
case_of() {
    local widest=$2 between=$3 name way told longest
    say "--- $1"
    three_ways exchange
    for name in a b; do
        told=$(($(in_ns "$name" cat /sys/class/net/bt0/mtu)))
        assert_eq "MTU of the TUN of $name" $((widest > 1500 ? widest : 1500)) "$told"
    done
    for way in local handed-off; do
        told=$(oracle_of mss exchange-$way)
        assert_eq "MSS that servers tell the client, $way" $((between - overhead - headers)) "$told"
        longest=$(oracle_of longest exchange-$way)
        # Timestamps take 12 octets of each.
        assert_eq "octets in the longest segment from the client, from the server, $way" \
            "$((between - overhead - headers - 12)) $((widest - headers - 12))" "$longest"
        assert_no_worse_than exchange-$way exchange-without 1.5 60
    done
    stop_baton a
    stop_baton b
}

links 1280 client a b
case_of "every link takes 1280" 1280 1280
links 9000 client a b
case_of "every link takes 9000" 9000 9000
for name in a:b b:a; do
    ip -n "$(namespace "${name%:*}")" route add "${address_of[${name#*:}]}" dev eth0 mtu 1500
done
case_of "every link takes 9000, and the way between the servers 1500" 9000 1500
assert_eq "fragments on any wire" 0 "$(fragments)"
assert_eq "errors from anybody" 0 "$(wire errors '*')"

say "the same checks, fed with what is wrong"
must_fail "the MSS that the server's kernel told" assert_eq "MSS" "$(oracle_of mss exchange-without)" "$(oracle_of mss exchange-handed-off)"
# One datagram that no link takes in one piece.
in_ns client "$PYTHON" -c 'import socket, sys
socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM).sendto(bytes(20000), (sys.argv[1], 9))' "${address_of[a]}"
must_fail "a datagram in pieces" assert_eq "fragments on any wire" 0 "$(fragments)"

scenario_end
