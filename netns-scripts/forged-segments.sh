#!/usr/bin/env bash
# Forged SYNs and resets into a live handed-off connection change nothing: the kernel that owns the connection judges
# them, and the download goes on. A reset that is exactly right does end it, for it is what TCP says.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file film 60M
start_applications
NO_VIDEOS=yes start_cluster

received_more_than() { (($(stat -c %s "$run_dir/film" 2>/dev/null || echo 0) > $1)); }
start_download() {
    rm -f "$run_dir/film"
    spawn client "$run_dir/log/curl.log" curl -sS --noproxy '*' --max-time 30 --limit-rate 15M --local-port "$1" \
        -D "$run_dir/film.headers" -o "$run_dir/film" "http://${host_of[a]}/images/film"
    download=$spawned
    wait_until 10 received_more_than 2000000
}
assert_download_by() { assert_eq "download answered by" "$1" "$(header X-Server "$run_dir/film.headers")"; }
assert_download_whole() {
    wait_until 30 process_gone "$download"
    cmp "$run_dir/film" "$run_dir/www/film" >/dev/null || fail "the download is not equal to the file"
    ok "the download is whole"
}

port=6100
for forgery in syn syn-inside reset; do
    say "forged: $forgery"
    port=$((port + 1))
    mark
    start_download "$port"
    assert_download_by b
    tool client rawtcp forge "${address_of[a]}" "$forgery" --source-port "$port" --count 10
    process_gone "$download" && fail "the download ended too soon for this check"
    assert_download_whole
    assert_counts a.handed_off=1 b.accepted=1
done

say "the same checks, fed with the one reset that must work"
mark
start_download 6110
must_fail "b answers" assert_download_by a
must_fail "this one is handed off too" assert_counts
tool client rawtcp forge "${address_of[a]}" reset-exact --source-port 6110 --count 1
# The client's own kernel knows nothing of the reset: it waits, or hears from the server that there is no connection.
wait_until 5 gone_from b 6110
kill "$download" 2>/dev/null || true
must_fail "the server has forgotten it" assert_download_whole

scenario_end
