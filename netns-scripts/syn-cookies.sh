#!/usr/bin/env bash
# A kernel that gives SYN cookies, alone, without baton: what it has forgotten it asks its application once more. A client is
# answered, its connection is cut at the server, the reset does not reach it, and it repeats its request: the acknowledgement in that
# is one of a cookie, and the application gets the request again. (docs/transparency.md
# says where that happens behind baton.)
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a
make_file picture 1K
start_nginx a
let_raw_connections_live

# requests_reach NUMBER COOKIES PORT: so many requests reach the application, of a client that asks twice.
requests_reach() {
    local log=$run_dir/log/nginx-a.access.log before asked
    in_ns a sysctl -q -w "net.ipv4.tcp_syncookies=$2"
    before=$(wc -l <"$log")
    spawn client "$run_dir/log/client-$3.log" "$PYTHON" "$scripts_dir/tools/rawtcp.py" repeat "${address_of[a]}" /images/picture \
        --source-port "$3" --after 1.5
    asked=$spawned
    wait_until 5 has_lines "$log" $((before + 1))
    # Whatever state it is in; the client does not heed the reset.
    in_ns a ss -K dst "${host_of[client]}" dport = ":$3" >/dev/null 2>&1
    wait_until 10 process_gone "$asked"
    assert_eq "requests that reached the application" "$1" $(($(wc -l <"$log") - before))
}
has_lines() { (($(wc -l <"$1") >= $2)); }

say "without cookies"
requests_reach 1 0 5001
say "with cookies, when the table of requests overflows: here always"
requests_reach 2 2 5002
must_fail "a cookie answers" requests_reach 1 2 5003

scenario_end
