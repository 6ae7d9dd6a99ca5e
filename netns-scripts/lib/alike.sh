# shellcheck shell=bash
# The same course of the same client in three ways, to be compared: `bare`, to a server that has no baton (c); `local`, to
# one that has it and answers itself (a); `handed-off`, to a, answered by b. All at the same time. Source after lib.sh.

# shellcheck source=netns-scripts/lib/oracle.sh
. "$scripts_dir/lib/oracle.sh"

# alike_up: the three servers; baton on a and b.
alike_up() {
    topology_up a b c
    # Whoever asks for the servers that have baton.
    nodes=(a b)
    local node
    for node in a b c; do
        # An answer leaves in full segments, and the FIN behind them: how it is cut is not chance.
        mkdir -p "$run_dir/$node/servers"
        echo 'tcp_nopush on;' >"$run_dir/$node/servers/alike.conf"
        start_nginx "$node" "${BACKLOG:-511}"
        start_upload_application "$node"
    done
    install_missing tshark:tshark tcpdump:tcpdump ethtool:ethtool
    complete_checksums a b c client
    keep_in_order switch a b c client
    meet_the_client a b c
    courses=$run_dir/log/courses
    : >"$courses"
    next_port=${FIRST_PORT:-20000}
}

# course CASE PATH [NAME=VALUE...]: of a client, in all three ways; see tools/alike.py. The ports it has, in `ports`: bare, local
# and handed off. PEER_ANSWERS says who answers the last, if not b.
course() {
    local case=$1 file=$2
    shift 2
    # A little after the one before: what all of them at once would wait for each other shows as timeouts.
    set -- "start=$(((next_port - ${FIRST_PORT:-20000}) * 10 + 1000))e-3" "$@"
    ports=("$next_port" "$((next_port + 1))" "$((next_port + 2))")
    next_port=$((next_port + 3))
    {
        echo "$case bare ${address_of[c]} ${ports[0]} c /elsewhere/$file $*"
        echo "$case local ${address_of[a]} ${ports[1]} a /elsewhere/$file $*"
        echo "$case handed-off ${address_of[a]} ${ports[2]} ${PEER_ANSWERS:-b} /images/$file $*"
    } >>"$courses"
}

# run_courses: all of them at once.
run_courses() {
    local file logs=() node
    BODY_HASHES=
    for file in "$run_dir"/www/*; do BODY_HASHES+="${file##*/}=$(sha256sum <"$file" | cut -d ' ' -f 1),"; done
    export BODY_HASHES
    for node in a b c ${LOGS_TOO:-}; do logs+=("$run_dir/log/nginx-$node.access.log"); done
    tool client alike run "$courses" "${logs[@]}" >"$run_dir/log/results" || true
    assert_whole
}

# assert_whole: of every course each request was answered by the server it is for, whole, and reached no application twice.
assert_whole() {
    local wrong
    wrong=$(grep -v ' whole$' "$run_dir/log/results") || true
    [[ -z $wrong && -s $run_dir/log/courses ]] || fail "courses that went wrong: $wrong"
    ok "$(wc -l <"$run_dir/log/results") courses, each answered whole by the server it was for, each request once"
}

# assert_alike [CASE/WAY:KIND...]: of each case the client's wire saw the same each way: tshark's flags, SYN, FIN and RST,
# checksums and timestamps; apart from what is named. See lib/oracle.sh; the capture is `courses`. What a busy machine does:
# a back-end's kernel, whose client is a process further away than it was for the handshake, probes for a loss (RFC 8985,
# section 7) before the acknowledgement is there. In few courses that may happen. BEYOND=yes: only what is more than without
# baton counts.
assert_alike() {
    compare_courses "$@" || fail "a client could tell; see above"
    ok "every course looks the same each way"
}
compare_courses() { "$PYTHON" "$scripts_dir/tools/alike.py" compare "$run_dir/oracle-courses.json" "$courses" "$@" \
    ${BEYOND:+--beyond} --few "${FEW:-6}" server.spurious_retransmission server.retransmission server:FIN client.{duplicate_ack,retransmission,spurious_retransmission}; }

# lose_once KIND PORT...: the first segment of that kind of the connections with these ports of the client, and no other. See
# tools/echoes.py for the kinds.
declare -A to_lose=()
lose_once() {
    local kind=$1
    shift
    to_lose[$kind]+=" $*"
}

# rules_of SENDER VERDICT: what becomes of the segments in the sets of this table that SENDER, client or server, sends.
rules_of() {
    local verdict=$2
    # one_rule KIND SERVER-SIDE CLIENT-SIDE MATCH
    one_rule() { echo "    tcp $2 80 tcp $3 @$1_of $4 delete @$1_of { tcp $3 } $verdict"; }
    if [[ $1 == client ]]; then
        one_rule syn dport sport 'tcp flags & (syn | ack) == syn'
        one_rule client_fin dport sport 'tcp flags & fin == fin'
        # Requests and answers are longer than headers can be; the length of IPv6 is without its own.
        one_rule request dport sport "$ip_header length > 100"
        one_rule ack dport sport "tcp flags == ack $ip_header length <= 80"
    else
        one_rule syn_ack sport dport 'tcp flags & (syn | ack) == (syn | ack)'
        one_rule fin sport dport 'tcp flags & fin == fin'
        one_rule answer sport dport "tcp flags & syn != syn $ip_header length > 100"
    fi
}
kinds=(syn syn-ack ack request answer fin client-fin)
# sets_of PORTS...: one set for each of `kinds`; each PORTS is a list.
sets_of() {
    local kind
    for kind in "${kinds[@]}"; do
        echo "  set ${kind/-/_}_of { type inet_service; flags dynamic; size 1024;"
        # shellcheck disable=SC2001
        [[ -z $1 ]] || echo "    elements = { $(xargs <<<"$1" | sed 's/ /, /g') }"
        echo '  }'
        shift
    done
}

# start_losing: what was asked for.
start_losing() {
    local kind lists=()
    for kind in "${kinds[@]}"; do lists+=("${to_lose[$kind]:-}"); done
    {
        echo 'table bridge once {'
        sets_of "${lists[@]}"
        echo '  chain passes {'
        echo '    type filter hook forward priority 10;'
        rules_of client 'counter drop'
        rules_of server 'counter drop'
        echo '  }'
        echo '}'
    } | in_ns switch nft -f -
}

# assert_lost COUNT: so many were lost, and of everything that was to be lost nothing is left.
assert_lost() {
    assert_once lost bridge once "$1"
}
# assert_once WHAT FAMILY TABLE COUNT
assert_once() {
    local left
    left=$(in_ns switch nft list table "$2" "$3" | grep -c 'elements') || true
    assert_eq "kinds of segments that were to be $1 and never passed" 0 "$left"
    assert_eq "segments $1" "$4" \
        "$(in_ns switch nft list table "$2" "$3" | awk '{ for (i = 1; i < NF; i++) if ($i == "packets") sum += $(i + 1) } END { print sum }')"
}

# repeat_once KIND PORT...: the network delivers that segment twice, one right behind the other.
declare -A to_repeat=()
repeat_once() {
    local kind=$1
    shift
    to_repeat[$kind]+=" $*"
}
start_repeating() {
    local kind lists=() port server
    for kind in "${kinds[@]}"; do lists+=("${to_repeat[$kind]:-}"); done
    {
        echo 'table netdev twice {'
        sets_of "${lists[@]}"
        for port in client a b c; do
            echo "  chain from_$port {"
            echo "    type filter hook ingress device \"$port\" priority 0;"
            if [[ $port != client ]]; then
                rules_of server 'counter dup to "client"'
            else
                for server in a b c; do rules_of client "counter dup to \"$server\"" | sed "s/^ */&$ip_header daddr ${address_of[$server]} /"; done
            fi
            echo '  }'
        done
        echo '}'
    } | in_ns switch nft -f -
}
assert_repeated() { assert_once "sent twice" netdev twice "$1"; }

# echo_once KIND MILLISECONDS PORT...: the network delivers that segment once more, so much later.
if [[ $FAMILY == 4 ]]; then ip_header=ip; else ip_header=ip6; fi
echoes=()
echo_once() {
    local kind=$1 delay=$2 port
    shift 2
    for port in "$@"; do echoes+=("$kind:$port:$delay"); done
}
start_echoes() {
    spawn switch "$run_dir/log/echoes.log" "$PYTHON" "$scripts_dir/tools/echoes.py" "${echoes[@]}"
    echoing=$spawned
    wait_until 10 grep -q ready "$run_dir/log/echoes.log"
}
# end_echoes: and require that all have been sent.
end_echoes() {
    kill -TERM "$echoing"
    wait_until 5 process_gone "$echoing"
    assert_eq "echoes" "sent again: ${#echoes[@]}; never passed: none" "$(tail -n 1 "$run_dir/log/echoes.log")"
}
