# shellcheck shell=bash
# Clients: curl for what a person would do, tools/*.py for what curl cannot.

# fetch FROM TO PATH [CURL OPTION...]: one request from namespace FROM to server TO. Sets
#   status, answered_by, local_port, octets, seconds, body (a file), outcome (curl's exit status).
fetch() {
    local from=$1 to=$2 path=$3 line
    shift 3
    body=$run_dir/fetched.body
    rm -f "$body" "$run_dir/fetched.headers"
    outcome=0
    line=$(in_ns "$from" curl -sS --noproxy '*' --max-time "${FETCH_TIMEOUT:-30}" \
        -D "$run_dir/fetched.headers" -o "$body" \
        -w '%{http_code} %{local_port} %{size_download} %{time_total}' "$@" \
        "${FETCH_URL:-http://${host_of[$to]}}$path" 2>"$run_dir/fetched.error") || outcome=$?
    read -r status local_port octets seconds <<<"$line"
    answered_by=$(header X-Server)
    [[ $outcome -eq 0 ]] || say "        curl: $(<"$run_dir/fetched.error") (status $outcome)"
    # shellcheck disable=SC2034 # for the scripts that call this
    last_fetch="$status $answered_by $local_port $octets $seconds"
}

# header NAME [FILE]: of the last answer, or of that in FILE; the last one if there were several.
header() {
    local file=${2:-$run_dir/fetched.headers}
    [[ -e $file ]] || return 0
    awk -v name="$1" 'BEGIN { IGNORECASE = 1; FS = ": *" } tolower($1) == tolower(name) { value = $2 } END { sub(/\r$/, "", value); print value }' "$file"
}

# tool NAMESPACE TOOL ARGUMENT...: one of our own clients.
tool() {
    local where=$1 name=$2
    shift 2
    in_ns "$where" "$PYTHON" "$scripts_dir/tools/$name.py" "$@"
}

# start_capture PORT [FILTER]: of everything on a port of the switch (`br0` for all of them), headers only; CAPTURE_WHOLE=yes: whole.
start_capture() {
    rm -f "$run_dir/log/tcpdump-$1.log"
    spawn switch "$run_dir/log/tcpdump-$1.log" \
        tcpdump -i "$1" -n -U -Z root -s "$([[ -n ${CAPTURE_WHOLE:-} ]] && echo 0 || echo 120)" -B 65536 -w "$run_dir/capture-$1.pcap" "${2:-ip or ip6}"
    echo "$spawned" >"$run_dir/capture-$1.process"
    wait_until 10 grep -q 'listening on' "$run_dir/log/tcpdump-$1.log"
}

# stop_capture PORT: and require that the kernel dropped nothing, for a check of a capture with holes proves nothing.
stop_capture() {
    local pid
    pid=$(<"$run_dir/capture-$1.process")
    # tcpdump reads in blocks of up to a second: an earlier end would lose what is in the last one.
    sleep 1.2
    kill -INT "$pid"
    wait_until 20 process_gone "$pid"
    assert_eq "packets the capture missed" "0 packets dropped by kernel" "$(grep 'dropped by kernel' "$run_dir/log/tcpdump-$1.log")"
}

# let_raw_connections_live: source ports 5000-5999 of the client belong to tools/rawtcp.py. The client's kernel knows
# nothing of them and would reset what it does not know; segments with the tool's mark pass.
let_raw_connections_live() {
    in_ns client nft -f - <<'END'
table inet by_hand {
  chain leaves {
    type filter hook output priority 0;
    tcp sport 5000-5999 tcp flags & rst == rst meta mark != 77 drop
  }
}
END
}

# gone_from NODE PORT: NODE's kernel has no established connection from this port of the client.
gone_from() { [[ -z $(in_ns "$1" ss -Htn state established "dst ${host_of[client]} and dport = :$2") ]]; }
