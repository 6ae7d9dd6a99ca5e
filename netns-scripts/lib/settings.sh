# shellcheck shell=bash
# Settings of the kernels' TCP, as somebody might have changed them.

# set_at NODE:NAME=VALUE...: settings of net.ipv4.
set_at() {
    local setting name node commands
    for node in a b c client; do
        commands=
        for setting in "$@"; do
            [[ $setting == "$node":* ]] || continue
            name=${setting%%=*}
            commands+="echo '${setting#*=}' >/proc/sys/net/ipv4/${name#*:} && "
        done
        [[ -z $commands ]] || in_ns $node sh -c "$commands :" || return
    done
}
# usual: what a server has that nobody has changed. The window scale is 7.
usual() {
    set_at {a,b,client}:tcp_{sack,timestamps,window_scaling}=1 {a,b,client}:tcp_ecn=2 \
        {a,b,client}:tcp_rmem='4096 131072 6291456'
}
# scale N: the tcp_rmem by which a kernel chooses window scale N; 7 is the least that net.core.rmem_max of this host allows.
scale() { echo "tcp_rmem=4096 131072 $((1 << ($1 + 15)))"; }
