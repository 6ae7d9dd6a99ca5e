# shellcheck shell=bash
# A connection that is kept alive, asked now and then. Source after lib.sh.

# keep PORT PATH [abort]: from this source port to a; nothing is asked yet. With `abort` its end is a RST, not a FIN.
keep() {
    coproc KEPT { exec ip netns exec "$(namespace client)" "$PYTHON" -c '
import http.client, socket, struct, sys
connection = http.client.HTTPConnection(sys.argv[1], 80, timeout=8, source_address=("", int(sys.argv[2])))
connection.connect()
if sys.argv[4:]:
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
connection.auto_open = 0
for line in sys.stdin:
    try:
        connection.request("GET", sys.argv[3])
        answer = connection.getresponse()
        print(answer.getheader("X-Server"), len(answer.read()), flush=True)
    except (OSError, http.client.HTTPException) as error:
        print(type(error).__name__, flush=True)
' "${address_of[a]}" "$@" 2>&1; }
    # shellcheck disable=SC2153,SC2034 # coproc sets one, scripts use the other
    kept_pid=$KEPT_PID
}

# ask: one request over it; `kept_answer` is who answered and with how many octets, or what went wrong.
ask() {
    echo >&"${KEPT[1]}"
    read -r -t 12 kept_answer <&"${KEPT[0]}" || fail "no answer and no error"
}

# let_go: the connection is closed.
let_go() {
    local descriptor=${KEPT[1]} process=$KEPT_PID
    exec {descriptor}>&-
    wait "$process" || true
}
