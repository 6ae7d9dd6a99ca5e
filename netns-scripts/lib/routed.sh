# shellcheck shell=bash
# A router on the switch, and a client behind it. Source after lib.sh, and call `add_router` after `topology_up`.
#
#     far  eth0 ---------- far  router  eth0 ---------- switch
#    10.78.0.9                                10.77.0.200
#    fd78::9                                  fd77::200, and what it advertises: itself, by its link-local address
#
# The servers' default route is the router: for IPv4 a route somebody wrote, for IPv6 what the router advertises.

add_router() {
    plug router
    make_namespace far
    local router far node
    router=$(namespace router) far=$(namespace far)
    in_ns far sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'
    ip -n "$far" link add eth0 type veth peer name far netns "$router"
    ip -n "$router" address add 10.78.0.1/24 dev far
    ip -n "$router" address add fd78::1/64 dev far nodad
    ip -n "$far" address add "${address_of[far4]}/24" dev eth0
    ip -n "$far" address add "${address_of[far6]}/64" dev eth0
    ip -n "$router" link set far up
    ip -n "$far" link set eth0 up
    ip -n "$far" route add default via 10.78.0.1
    ip -n "$far" -6 route add default via fd78::1
    in_ns router sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
    for node in "${nodes[@]}"; do ip -n "$(namespace "$node")" route add default via "${address_of[router4]}"; done
    spawn router "$run_dir/log/advertise.log" "$PYTHON" "$scripts_dir/tools/advertise.py" eth0 2
    for node in "${nodes[@]}"; do wait_until 5 has_advertised_route "$node"; done
}

# advertised_route NODE: the default route that a router advertised to it, without the time it has still to live.
advertised_route() { ip -n "$(namespace "$1")" -6 route show default proto ra | sed 's/ expires.*//'; }
has_advertised_route() { [[ $(advertised_route "$1") == *"via fe80:"* ]]; }

# The router's two networks, and what its kernel's own route to each of them looks like.
declare -A network_of=([far4]=10.78.0.0/24 [far6]=fd78::/64 [eth04]=10.77.0.0/24 [eth06]=fd77::/64)
declare -A route_of=([far4]='proto kernel scope link src 10.78.0.1' [eth04]="proto kernel scope link src ${address_of[router4]}"
    [far6]='proto kernel metric 256' [eth06]='proto kernel metric 256')
# narrow DEVICE MTU: larger packets the router does not send through `far`, to the client behind it, or `eth0`, to the servers,
# and says so to whoever sent one. By its routes, which its own device does not know of: a wire whose ends take different sizes
# would lose what the other end sends, each segment that is not part of a larger packet of the sender's offload, and nobody would
# be told.
narrow() {
    local router family
    router=$(namespace router)
    for family in 4 6; do
        # shellcheck disable=SC2086 # one word per option
        ip -n "$router" -$family route change "${network_of[$1$family]}" dev "$1" ${route_of[$1$family]} mtu lock "$2"
    done
}
# forget_path_mtus NAMESPACE...: what they have learned, in every table of routes; the one of the aliases is baton's.
forget_path_mtus() {
    local name
    for name in "$@"; do
        name=$(namespace "$name")
        ip -n "$name" -4 route flush cache
        ip -n "$name" -6 route flush table all cache
    done
}
