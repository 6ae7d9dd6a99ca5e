#!/usr/bin/env bash
# For minutes, batons are killed, stopped, frozen and started at random while clients keep asking. A connection that was
# handed off may die with its owner's baton; what never may happen is a wrong answer, a failed request for a server's own
# content (as long as it is asked where it is), an alias address or an untranslated number on a wire, or anything left on
# the host at the end.

# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
: "${SECONDS_OF_TROUBLE:=300}" "${SEED:=$RANDOM}"

topology_up a b c
make_file small 20K
start_applications
export BATON_RUST_LOG=baton=info
write_cluster
for node in "${nodes[@]}"; do in_ns "$node" ip rule >"$run_dir/log/rules-$node.before"; done
start_cluster
RANDOM=$SEED
say "seed $SEED"

spawn client "$run_dir/log/local.log" "$PYTHON" "$scripts_dir/tools/load.py" stream "${address_of[a]}" --concurrency 2 \
    --until "$run_dir/end" --expect /elsewhere/small=a --body "$run_dir/www/small"
local_stream=$spawned
spawn client "$run_dir/log/any.log" "$PYTHON" "$scripts_dir/tools/load.py" stream "${address_of[a]}" --concurrency 2 \
    --until "$run_dir/end" --expect /images/small=any --expect /videos/small=any --body "$run_dir/www/small"
any_stream=$spawned

until_time=$((SECONDS + SECONDS_OF_TROUBLE))
declare -A did=()
while ((SECONDS < until_time)); do
    node=${nodes[RANDOM % 3]}
    # a is killed and stopped but not frozen: a frozen front-end delays, by design, what it holds.
    case $((RANDOM % 3)) in
        0) kill_baton "$node"; did[kill]=$((${did[kill]:-0} + 1)) ;;
        1) stop_baton "$node"; did[stop]=$((${did[stop]:-0} + 1)) ;;
        2)
            [[ $node != a ]] || continue
            freeze_baton "$node"
            sleep "0.$((RANDOM % 10))"
            thaw_baton "$node"
            did[freeze]=$((${did[freeze]:-0} + 1))
            ;;
    esac
    sleep "0.$((RANDOM % 10))"
    ! process_gone "$(baton_pid "$node")" || start_baton "$node"
    sleep "$((RANDOM % 2)).$((RANDOM % 10))"
    assert_eq "packets with an alias address on any wire" 0 "$(wire alias-packets)" >/dev/null
done
for did_what in "${!did[@]}"; do say "        $did_what: ${did[$did_what]} times"; done
touch "$run_dir/end"
wait_until 60 process_gone "$local_stream"
wait_until 60 process_gone "$any_stream"
say "        own content: $(tail -n 1 "$run_dir/log/local.log")"
say "        others' content: $(tail -n 1 "$run_dir/log/any.log")"

# told LOG NAME: a number that the stream told at its end.
told() { tail -n 1 "$1" | grep -oE "\"$2\": [0-9]+" | grep -oE '[0-9]+$'; }
# served NODE FIRST_PATH_ELEMENT: whole answers that its nginx has given; it outlives every baton.
served() { awk -v path="/$2/small" '$4 == path && $5 == 200 && $6 == 20480' "$run_dir/log/nginx-$1.access.log" | wc -l; }
assert_no_errors() { assert_eq "failed requests for a server's own content" 0 "$(told "$1" errors)"; }
assert_no_wrong_answer() { ! grep -E 'wrong body|status [0-9]|instead of' "$1" || fail "a wrong answer"; }
# What a killed baton has counted is lost with it, and why one falls back is chance. So the applications' own logs count:
# assert_own ANSWERS: as many were given, each by the server that was asked, and none twice.
assert_own() { assert_eq "own content, served by a, b, c" "$1 0 0" "$(served a elsewhere) $(served b elsewhere) $(served c elsewhere)"; }
# assert_others ANSWERS ERRORS: as many were given, and no more than were asked for: none twice. A client whose
# connection died may or may not have been served before.
assert_others() {
    local all
    all=$(($(served a images) + $(served a videos) + $(served b images) + $(served c videos)))
    assert_at_least "others' content, served by anybody" "$1" "$all"
    assert_at_most "others' content, served by anybody" $(($1 + $2)) "$all"
    assert_eq "videos served by b, images served by c" "0 0" "$(served b videos) $(served c images)"
}

assert_no_errors "$run_dir/log/local.log"
assert_no_wrong_answer "$run_dir/log/any.log"
ok "no wrong answer"
own=$(told "$run_dir/log/local.log" answers) others=$(told "$run_dir/log/any.log" answers)
assert_own "$own"
assert_others "$others" "$(told "$run_dir/log/any.log" errors)"
assert_at_least "of these by b" 1 "$(served b images)"
assert_at_least "of these by c" 1 "$(served c videos)"

say "and all is well again"
wait_for_peers
mark
fetch client a /images/small
assert_answered b
assert_counts a.handed_off=1 b.accepted=1
assert_host_as_before() {
    in_ns "$1" ip rule | diff "$run_dir/log/rules-$1.before" - || fail "rules of $1 are not what they were"
    [[ -z $(in_ns "$1" nft list ruleset) ]] || fail "nftables of $1 are not what they were"
}

say "the same checks, fed with what is wrong"
must_fail "b answered" assert_answered a
must_fail "one was handed off" assert_counts
must_fail "one more own" assert_own $((own + 1))
must_fail "one was served and nobody asked" assert_others $((others - 1)) 0
must_fail "baton is running" assert_host_as_before a
tool client load close "${address_of[a]}" --connections 1 --expect /images/small=a >"$run_dir/log/wrong.log" || true
must_fail "b answered instead of a" assert_no_wrong_answer "$run_dir/log/wrong.log"
must_fail "and this is an error" assert_no_errors "$run_dir/log/wrong.log"

for node in "${nodes[@]}"; do
    stop_baton "$node"
    assert_host_as_before "$node"
done
ok "rules and nftables are what they were"

scenario_end
