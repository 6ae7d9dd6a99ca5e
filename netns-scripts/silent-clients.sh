#!/usr/bin/env bash
# 600 clients connect, say nothing for ten seconds, then ask. The listener's backlog is 511, yet every one is answered,
# by the right server.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file picture 20K
start_applications
export BATON_RUST_LOG=baton=info
NO_VIDEOS=yes start_cluster

mark
answers=$(tool client load silent "${address_of[a]}" --connections 600 --silence 10 --body "$run_dir/www/picture" \
    --expect /images/picture=b --expect /elsewhere/picture=a) || fail "errors: $answers"
say "        $answers"
[[ $answers == *'"by": {"a": 300, "b": 300}'* ]] || fail "not half and half"
ok "half answered here, half there"
assert_counts a.handed_off=300 b.accepted=300

say "others are not kept waiting by the silent ones"
mark
spawn client "$run_dir/log/silent.log" "$PYTHON" "$scripts_dir/tools/load.py" silent "${address_of[a]}" --connections 600 \
    --silence 4 --body "$run_dir/www/picture" --expect /images/picture=b --expect /elsewhere/picture=a
silent=$spawned
undecided() { (($(stat_of a connections_front_end) >= 600)); }
wait_until 10 undecided
fetch client a /elsewhere/picture --max-time 2
assert_answered a
fetch client a /images/picture --max-time 2
assert_answered b
wait_until 40 process_gone "$silent"
grep -q '"errors": 0, "by": {"a": 300, "b": 300}' "$run_dir/log/silent.log" || fail "$(tail -n 1 "$run_dir/log/silent.log")"
ok "and the silent ones are answered too"
assert_counts a.handed_off=301 b.accepted=301

must_fail "one more was handed off" assert_counts a.handed_off=300 b.accepted=300
must_fail "b answered the last one" assert_answered a
must_fail "a answers what b should" tool client load silent "${address_of[a]}" --connections 4 --silence 0 --expect /elsewhere/picture=b

scenario_end
