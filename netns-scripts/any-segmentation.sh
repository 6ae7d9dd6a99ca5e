#!/usr/bin/env bash
# A request may arrive in any segments: one octet in each, out of order, twice, or one octet at a time from a kernel that
# waits for acknowledgements in between. The right server answers, whether that is this one or another.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file picture 100K
start_applications
NO_VIDEOS=yes start_cluster
hash=$(sha256sum <"$run_dir/www/picture" | cut -d ' ' -f 1)
let_raw_connections_live

port=5000
# by_hand PATH ORDER: one request by a TCP made by hand; the answer in `answer`.
by_hand() {
    port=$((port + 1))
    answer=$(tool client rawtcp request "${address_of[a]}" "$1" --source-port "$port" --order "$2")
}
field() { "$PYTHON" -c 'import json, sys; print(json.loads(sys.argv[1])[sys.argv[2]])' "$answer" "$1"; }
assert_whole_answer_from() {
    assert_eq "answered by, status, hash, finished, reset, outside the window" "$1 200 $hash True False 0" \
        "$(field answered_by) $(field status) $(field sha256) $(field finished) $(field reset) $(field outside_window)"
}

for order in octets 1,2,3 1,3,2 2,1,3 2,3,1 3,1,2 3,2,1 1,1,2,1,3,3 3,3,2,2,1,1; do
    say "segments: $order"
    mark
    by_hand /images/picture "$order"
    assert_whole_answer_from b
    assert_counts a.handed_off=1 b.accepted=1
    mark
    by_hand /elsewhere/picture "$order"
    assert_whole_answer_from a
    assert_counts
done

say "octet by octet from a kernel, which sends ten segments and then waits"
mark
tool client load drip "${address_of[a]}" --connections 4 --body "$run_dir/www/picture" \
    --expect /images/picture=b --expect /elsewhere/picture=a || fail "errors"
assert_counts a.handed_off=2 b.accepted=2
must_fail "two were handed off" assert_counts a.handed_off=1 b.accepted=1

say "the same checks, fed with a wrong answer"
by_hand /elsewhere/picture 3,1,2
must_fail "a itself answered" assert_whole_answer_from b
by_hand /elsewhere/nothing 3,1,2
must_fail "there is no such file" assert_whole_answer_from a
must_fail "a itself answers" tool client load drip "${address_of[a]}" --connections 1 --expect /elsewhere/picture=b

scenario_end
