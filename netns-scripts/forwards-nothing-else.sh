#!/usr/bin/env bash
# A server with several devices forwards for others while baton runs exactly what it forwarded before: nothing when it was
# no router, between its other devices only when that was so (as with containers), all when it was a router. Also after
# kill -9. (host-becomes-no-router.sh looks closer at one device, and at routers' advertisements.)
#
#       client ---- switch ---- a ---- inside       a's second device; other, a third one
#
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/host.sh
. "$scripts_dir/lib/host.sh"

topology_up a b
make_file picture 20K
start_applications
NO_VIDEOS=yes write_cluster

# attach NAME DEVICE PREFIX: a namespace of its own behind a.
attach() {
    make_namespace "$1"
    ip -n "$(namespace a)" link add "$2" type veth peer name eth0 netns "$(namespace "$1")"
    ip -n "$(namespace a)" address add "$3.1/24" dev "$2"
    ip -n "$(namespace a)" link set "$2" up
    ip -n "$(namespace "$1")" address add "$3.2/24" dev eth0
    ip -n "$(namespace "$1")" link set eth0 up
    ip -n "$(namespace "$1")" route add default via "$3.1"
    count_in "$1"
}

# count_in NAMESPACE: strangers' packets by their port, and what a says to the one who sent them.
count_in() {
    in_ns "$1" nft -f - <<'END'
table inet count {
  counter strangers { }
  counter redirects { }
  chain enters { type filter hook prerouting priority -400;
    udp dport 4242 counter name strangers
    icmp type redirect counter name redirects
  }
}
END
}
counted() { in_ns "$1" nft list counter inet count "$2" | awk '$1 == "packets" { print $2 }'; }
counts() { printf 'inside=%s other=%s b=%s redirects=%s' "$(counted inside strangers)" "$(counted other strangers)" "$(counted b strangers)" "$(counted client redirects)"; }

attach inside eth1 10.78.0
attach other eth2 10.79.0
count_in client
count_in b
# The client takes a for its router: to what is behind a, and to b beside it.
for to in 10.78.0.0/24 10.77.0.2/32; do ip -n "$(namespace client)" route replace "$to" via 10.77.0.1; done

# send FROM TO: ten packets of a stranger.
send() {
    in_ns "$1" "$PYTHON" -c "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(10):
    try: s.sendto(b'not yours', (sys.argv[1], 4242))
    except OSError: pass" "$2"
}

# assert_passes WHAT COUNTS: what came of ten packets each way.
assert_passes() {
    local where
    for where in inside other b client; do in_ns "$where" nft reset counters >/dev/null; done
    send client 10.78.0.2
    send client 10.77.0.2
    send inside 10.79.0.2
    send inside 10.77.0.2
    sleep 0.1
    assert_eq "$1" "$2" "$(counts)"
}

use() {
    mark
    fetch client a /images/picture
    assert_answered b
    fetch client a /elsewhere/picture
    assert_answered a
    assert_counts a.handed_off=1 b.accepted=1
}

# The client's own way to b must not lead over a while it talks to baton.
in_ns client sysctl -qw net.ipv4.conf.all.accept_redirects=0 net.ipv4.conf.eth0.accept_redirects=0

# during: the same while baton runs, whatever it was before; and after.
during() {
    assert_passes "before" "$1"
    remember_host a
    start_cluster
    use
    assert_passes "while baton runs" "$1"
    kill_baton a
    assert_passes "after kill -9" "$1"
    start_baton a
    wait_for_peers
    use
    assert_passes "while the next one runs" "$1"
    for node in a b; do stop_baton "$node"; done
    assert_passes "afterwards" "$1"
    assert_host_as_before a
}

say "no router"
during "inside=0 other=0 b=0 redirects=0"

say "a router between its other devices only"
in_ns a sysctl -qw net.ipv4.conf.eth1.forwarding=1 net.ipv4.conf.eth2.forwarding=1
during "inside=0 other=10 b=10 redirects=0"
must_fail "forwarding is on between the other devices" assert_passes "forwarded" "inside=0 other=0 b=0 redirects=0"

say "a router"
in_ns a sysctl -qw net.ipv4.ip_forward=1
in_ns a sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0
during "inside=10 other=10 b=20 redirects=0"

scenario_end
