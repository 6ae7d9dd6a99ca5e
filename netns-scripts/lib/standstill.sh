# shellcheck shell=bash
# What there is to see of a transfer that stands still, taken while it does. Source after lib.sh and lib/oracle.sh.
#
#   keep_last_packets FROM      rings of what the device of FROM and the TUNs of the servers carried last, headers only
#   note_standstill FROM PID... until these processes of FROM end; what stood still for STANDSTILL seconds is in log/standstill-*
#   forget_last_packets
#
# It is no failure: where packets are lost a kernel may wait that long. It is for whoever asks later why a transfer failed.

declare -A rings=()

keep_last_packets() {
    local name device
    for name in "$1" "${nodes[@]}"; do
        device=bt0
        [[ $name != "$1" ]] || device=eth0
        # Without baton there is no TUN.
        ip -n "$(namespace "$name")" link show dev $device >/dev/null 2>&1 || device=eth0
        spawn "$name" "$run_dir/log/ring-$name.log" \
            tcpdump -i $device -n -Z root -s 200 -B 65536 -C 60 -W 2 -w "$run_dir/ring-$name.pcap" tcp
        rings[$name]=$spawned
    done
}

forget_last_packets() {
    end_rings
    rm -f "$run_dir"/ring-*.pcap*
}

end_rings() {
    local name
    for name in "${!rings[@]}"; do
        kill -INT "${rings[$name]}" 2>/dev/null || true
        wait_until 20 process_gone "${rings[$name]}"
    done
    rings=()
}

note_standstill() {
    local from=$1 still place name part port
    shift
    ! still=$(in_ns "$from" "$PYTHON" "$scripts_dir/tools/standstill.py" "$STANDSTILL" 80 "$@") || return 0
    place=$run_dir/log/standstill-${still%% *}
    mkdir -p "$place"
    say "        port ${still%% *} stands still for $STANDSTILL s, at $still: see ${place#"$run_dir/"}"
    printf '%(%T)T %s\n' -1 "$still" >"$place/which"
    # Twice: what changes in between still moves.
    for part in 1 2; do
        for name in "$from" "${nodes[@]}"; do
            {
                printf '%(%T)T\n' -1
                in_ns "$name" ss -tinem
                in_ns "$name" nstat -as
                in_ns "$name" ip -s -s link
                in_ns "$name" cat /proc/net/netstat
            } >"$place/$name-$part" 2>&1
            [[ ! -S $run_dir/$name/baton.sock ]] || for question in flows stats; do
                baton_ask "$name" $question --json >"$place/$name-$question-$part" 2>&1 || true
            done
        done
        sleep 1
    done
    port=${still%% *}
    end_rings
    for name in "$from" "${nodes[@]}"; do
        for part in 0 1; do
            [[ ! -e $run_dir/ring-$name.pcap$part ]] || tcpdump -r "$run_dir/ring-$name.pcap$part" -w "$place/$name-$part.pcap" "port $port" 2>/dev/null || true
        done
    done
}
