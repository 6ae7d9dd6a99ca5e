# shellcheck shell=bash
# A client that is not on the servers' link: behind a router, which is one more namespace at the switch.
#
#     switch ---- router ---- far            router .50, far 10.78.0.2 (10.78.0.0/24)
#            eth0       eth1    eth0
#
# After topology_up. The servers know the way; `far` fetches like `client` does.

far_address=10.78.0.2
address_of[router]=10.77.0.50
address_of[far]=$far_address

router_up() {
    local router far node
    plug router
    make_namespace far
    router=$(namespace router)
    far=$(namespace far)
    ip -n "$router" link add eth1 type veth peer name eth0 netns "$far"
    ip -n "$router" address add 10.78.0.1/24 dev eth1
    ip -n "$router" link set eth1 up
    ip -n "$far" address add "$far_address/24" dev eth0
    ip -n "$far" link set eth0 up
    ip -n "$far" route add default via 10.78.0.1
    in_ns router sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
    for node in "${nodes[@]}"; do
        ip -n "$(namespace "$node")" route add 10.78.0.0/24 via "${address_of[router]}"
    done
}

# narrow_link_behind_router MTU: the router takes no longer packets towards `far`, and says so; `far` does not know.
narrow_link_behind_router() { ip -n "$(namespace router)" route change 10.78.0.0/24 dev eth1 src 10.78.0.1 mtu lock "$1"; }

# complaints_of_router: ICMP errors of the kind "destination unreachable" (which "fragmentation needed" is) it has sent.
complaints_of_router() {
    in_ns router cat /proc/net/snmp | awk '
        $1 == "Icmp:" && column { print $column }
        $1 == "Icmp:" { for (i = 2; i <= NF; i++) if ($i == "OutDestUnreachs") column = i }'
}
