# shellcheck shell=bash
# A client that is far away: tools/shaper.py takes the place of the client's wire. Source after lib.sh, and call after
# `topology_up`.

far_mac='' far_addresses=() shaper=''

# move_client_away MILLISECONDS [OPTION...]: of round trip, and further options of tools/shaper.py, whose near end is the client.
# May be called again. The addresses, the hardware address and the name of
# the switch port stay what they were, so that nothing else on the stage notices.
move_client_away() {
    local name switch line
    name=$(namespace client)
    switch=$(namespace switch)
    if [[ ${#far_addresses[@]} -eq 0 ]]; then
        far_mac=$(ip -n "$name" -br link show dev eth0 | awk '{ print $3 }')
        while read -r line; do far_addresses+=("$line"); done < <(ip -n "$name" -o address show dev eth0 scope global | awk '{ print $4 }')
        ip -n "$name" link delete eth0
    fi
    [[ -z $shaper ]] || end_shaper
    rm -f "$run_dir/log/shaper.log"
    spawn switch "$run_dir/log/shaper.log" "$PYTHON" "$scripts_dir/tools/shaper.py" "$name/eth0" "$switch/client" \
        --delay "$("$PYTHON" -c "print($1 / 2)")" "${@:2}"
    shaper=$spawned
    wait_until 10 grep -q ready "$run_dir/log/shaper.log"
    # A window's worth of segments arrives at once; the queue of a TAP, 1,000 frames, would lose some.
    ip -n "$switch" link set dev client txqueuelen 100000 master br0 up
    ip -n "$name" link set dev eth0 address "$far_mac" txqueuelen 100000
    for line in "${far_addresses[@]}"; do ip -n "$name" address add "$line" dev eth0; done
    ip -n "$name" link set dev eth0 up
    # What was learned at another distance: neighbours, and round trips of former connections.
    local node
    for node in "${nodes[@]}"; do forget_round_trips "$node"; done
    # An answered or a refused connection: either way the wire carries, and both ends have asked for the other's hardware
    # address, which takes a round trip too.
    for node in "${nodes[@]}"; do wait_until 10 client_reaches "${address_of[$node]}"; done
}

# end_shaper: and require that it has lost nothing.
end_shaper() {
    kill -TERM "$shaper"
    wait_until 5 process_gone "$shaper"
    shaper=
    grep -q '"refused": 0' "$run_dir/log/shaper.log" || fail "the shaper lost frames: $(tail -n 1 "$run_dir/log/shaper.log")"
}

# shaper_did WHAT: of the last one that ended: `[from the client, to the client]`, such as `[12, 7]`.
shaper_did() { tail -n 1 "$run_dir/log/shaper.log" | "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

# forget_round_trips NODE: a kernel keeps what it measured of a client, for the client's next connections (tcp_metrics).
forget_round_trips() { in_ns "$1" ip tcp_metrics flush all >/dev/null; }

# as_the_kernel_sees NODE PORT: one line of NODE's socket towards this port of the client, such as
# `rtt=300.2 minrtt=300.1 rto=504 cwnd=10`, in milliseconds and segments; `none` for what the kernel does not have.
as_the_kernel_sees() {
    in_ns "$1" ss -Htin "dst ${host_of[client]} and dport = :$2" | tr ' ' '\n' | awk -F '[:/]' '
        { value[$1] = $2 }
        function of(name) { return name "=" (name in value ? value[name] : "none") }
        END { print of("rtt"), of("minrtt"), of("rto"), of("cwnd") }'
}

client_reaches() {
    in_ns client "$PYTHON" -c '
import socket, sys
try: socket.create_connection((sys.argv[1], 80), timeout=3)
except ConnectionRefusedError: pass' "$1"
}
