#!/usr/bin/env bash
# Packets that are allowed and rare: extension headers of IPv6 around a request change nothing; a request in fragments,
# which the kernel puts together behind baton, is served where it arrived, and so is a neighbour that uses its link-local
# address. All of it is answered.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file picture 300K
start_applications
NO_VIDEOS=yes start_cluster
hash=$(sha256sum <"$run_dir/www/picture" | cut -d ' ' -f 1)
let_raw_connections_live

port=5000
# by_hand ADDRESS PATH [OPTION...]: one request by a TCP made by hand; the answer in `answer`.
by_hand() {
    local address=$1 path=$2
    shift 2
    port=$((port + 1))
    answer=$(tool client rawtcp request "$address" "$path" --source-port "$port" --order 1,2,3 "$@")
}
field() { "$PYTHON" -c 'import json, sys; print(json.loads(sys.argv[1])[sys.argv[2]])' "$answer" "$1"; }
assert_whole_answer_from() {
    assert_eq "answered by, status, hash, finished, reset, outside the window" "$1 200 $hash True False 0" \
        "$(field answered_by) $(field status) $(field sha256) $(field finished) $(field reset) $(field outside_window)"
}

for clad in hop-by-hop destination routing whole all; do
    say "extension headers of IPv6: $clad"
    mark
    by_hand "${address_of[a6]}" /images/picture --clad "$clad"
    assert_whole_answer_from b
    assert_counts a.handed_off=1 b.accepted=1
    mark
    by_hand "${address_of[a6]}" /elsewhere/picture --clad "$clad"
    assert_whole_answer_from a
    assert_counts
done

for family in 4 6; do
    say "fragments of IPv$family"
    mark
    by_hand "${address_of[a$family]}" /images/picture --clad fragments
    assert_whole_answer_from a
    assert_counts a.fallback.kernel_went_on=1
done

say "a neighbour that uses its link-local address"
neighbour=$(ip -n "$(namespace client)" -6 -o address show dev eth0 scope link | awk '{ sub("/.*", "", $4); print $4 }')
mark
tool client load close "${address_of[a6]}" --connections 1 --concurrency 2 --from "$neighbour%eth0" \
    --expect /images/picture=a --body "$run_dir/www/picture" || fail "no answer"
assert_eq "the client as a sees it" "$neighbour" "$(tail -n 1 "$run_dir/log/nginx-a.access.log" | cut -d ' ' -f 1 | sed 's/:[0-9]*$//')"
assert_counts

say "the same checks, fed with usual packets"
mark
by_hand "${address_of[a6]}" /images/picture
must_fail "b answers" assert_whole_answer_from a
must_fail "it was handed off" assert_counts

scenario_end
