# shellcheck shell=bash
# What scenarios ask about `forward: link`. Source after lib.sh.

# links_usable NODE COUNT: as many of its links are used, one for each peer and family.
links_usable() { [[ $(stat_of "$1" links_usable) -eq $2 ]]; }
# handled NODE: packets that came to the process there.
handled() { stat_of "$1" tun_read_packets_total; }
# forwarded NODE: packets that the kernel there forwarded by itself (super-segments count as one).
forwarded() {
    in_ns "$1" nft list counters table inet baton |
        awk '/counter link_passed/ { is_it = 1 } is_it && $1 == "packets" { sum += $2; is_it = 0 } END { print sum + 0 }'
}
# learned NODE [PORT]: connections that it forwards by itself; from this port.
learned() {
    in_ns "$1" nft -j list set inet baton "learned$FAMILY" | "$PYTHON" -c '
import json, sys
port = int(sys.argv[1]) if sys.argv[1:] else None
elements = [e for o in json.load(sys.stdin)["nftables"] if "set" in o for e in o["set"].get("elem", [])]
print(sum(1 for e in elements if port in (None, e["elem"]["val"]["concat"][1])))' "${@:2}"
}
has_learned() { [[ $(learned "$@") -ge 1 ]]; }
nothing_learned() { [[ $(learned "$@") -eq 0 ]]; }

# slowly: a download of b's content that takes some seconds, in the background; $slow is its process.
slowly() {
    rm -f "$run_dir/slow.body"
    spawn client "$run_dir/log/slow.log" curl -sS --noproxy '*' --max-time 60 --limit-rate "${RATE:-10M}" -o "$run_dir/slow.body" "http://${host_of[a]}/images/large"
    slow=$spawned
    wait_until 10 test -s "$run_dir/slow.body"
    wait_until 10 has_learned a
}
assert_slow_is_whole() {
    wait_until 60 process_gone "$slow"
    assert_same_content "the slow download" "$run_dir/slow.body" "$run_dir/www/large"
}
assert_same_content() { assert_eq "hash of $1" "$(sha256sum <"$3")" "$(sha256sum <"$2")"; }
